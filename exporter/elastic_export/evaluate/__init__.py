"""What a budget and a precision cost, measured on a text beside the parent."""
