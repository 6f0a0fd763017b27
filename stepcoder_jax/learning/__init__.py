"""What a batch teaches: pure steps from arrays to arrays, without file, clock or process.

Imports models, config and pytrees; `devices` jits and shards what is here, and knows no
other way in. Read advantages and losses, then ppo and grpo, which each end in one
`Algorithm`, controls, which steer either, updates, which runs them; and sft. scoring,
metrics, vocabulary, batching, optimizers and quantized_adam are what they are made of.
"""
