"""What runs a base model with its adapters, behind one protocol (`base.Engine`)."""
