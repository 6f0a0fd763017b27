"""The policy and value networks; Flax is seen only in here."""
