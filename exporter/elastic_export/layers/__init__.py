"""What a hybrid model is made of: layer kinds and elastic axes; shapes, masks, runs and states follow from them."""
