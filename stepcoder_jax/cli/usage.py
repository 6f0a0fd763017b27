"""What `stepcoder --help` says: every command, in one line each."""

USAGE = """stepcoder: a code model learns from running its own programs (arXiv:2402.01391)

  stepcoder train EXPERIMENT[:ARG] [--section.field VALUE ...]   PPO or GRPO, CCCS, FGO
  stepcoder plan EXPERIMENT[:ARG] --topology v5e:4x4 [...]       what chips it would take
  stepcoder sft EXPERIMENT[:ARG] [--section.field VALUE ...]     supervised fine-tuning
  stepcoder evaluate RUN [--samples-per-problem 10] [--k 1 10]   pass@k of a run
  stepcoder evaluate MODEL --problems FILE [...]                 pass@k of any model folder
  stepcoder evaluate RUN [...] --rounds 3 [--variant both]       and after mending failures
  stepcoder sample RUN [--problems FILE] [--count 4]             programs in colour
  stepcoder sample RUN [...] --rounds 1 [--variant explain]      what it reads of a failure
  stepcoder refine RUN --problems FILE ... --out DIR [...]       records of self-debugging
  stepcoder export RUN [--step N] --out DIR                      a folder for transformers
  stepcoder replay RUN/nonfinite/STEP                            rerun a non-finite update
  stepcoder head RUN --kind outcome --out DIR                    a head on judged programs
  stepcoder judge FILE --solutions canonical                     run canonical solutions
  stepcoder judge FILE --write-limits                            measure CPU limits
  stepcoder judge SAMPLES --problems FILE [--out FILE]           run samples of a model
  stepcoder compare RESULTS_A RESULTS_B [--k 1 10] [--out NAME]  paired differences
  stepcoder report RUN [RUN ...] --out FILE.html                 see it all in a browser
  stepcoder data generate FILE [--tier guarded] [--split train]  write the benchmark
  stepcoder data stats FILE [--tokenizer T] [--coverage]         what a problem set is like
  stepcoder data check TRAIN [--test FILE] [--against FILE ...]  curate it, with a report
  stepcoder data build FOLDER --train FILE [--report FILE]       one ArrayRecord data set
  stepcoder data profile RUN [--samples 8] [--out FILE]          pass rates, to draw by
  stepcoder doctor [--hosts]                                     versions, devices, sandbox

EXPERIMENT is a Python file with get_config(arg="") -> Config; every field of the config
is a flag: `stepcoder train experiments/quickstart.py --help` lists them with defaults.
`stepcoder COMMAND --help` has the flags of each command, `stepcoder --version` the version.
"""
