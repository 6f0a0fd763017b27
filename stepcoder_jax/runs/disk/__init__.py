"""What a run reads at its start, and what it leaves on disk.

Imports devices, results, data and what stands below. Read preflight (what is checked before
anything is loaded), sources (where weights and problems are), contexts (failed programs out
of records), run_folder and sft_folder, then checkpoint and seals (a digest, written last);
model_folder is what stands beside weights for other programs, interrupt a signal as a
question.
"""
