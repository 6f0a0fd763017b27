"""The networks, and how Hugging Face writes them; Flax is seen only in here.

README.md beside this file says what lives here and who may call it.
"""
