"""What a run would take of chips that need not be there: memory, traffic, time.

Imports devices and what stands below it. Read counting (GiB by shapes alone), work (FLOPs
and bytes by formula), chips and roofline (seconds); then programs, compiling and hlo (what
the compiler for TPUs says of the run's own programs); last plan, which joins them, search
and showing.
"""
