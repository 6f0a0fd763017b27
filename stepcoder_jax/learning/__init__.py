"""What a batch teaches: pure steps from arrays to arrays, without file, clock or process.

Imports models, config and pytrees; `devices` jits and shards what is here, and knows no
other way in. Read advantages and losses, then ppo and grpo, which each end in one
`Algorithm`, then updates, which runs any of them; and sft. scoring, metrics, vocabulary,
batching, optimizers and quantized_adam are what they are made of.
"""
