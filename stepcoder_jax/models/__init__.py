"""The networks, and how Hugging Face writes them; Flax is seen only in here.

Imports config and records. Params are plain pytrees: whoever comes in calls `policy`
(`init_params`, `hidden_states`, `lm_head`), or `decoding` for one token at a time.
Read policy, then transformer with attention and rotary, decoding, lora; families,
hf_config, hf_folder and weights are the way from and to a folder.
"""
