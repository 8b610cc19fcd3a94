"""What an export will make, decided and checked before anything is computed."""
