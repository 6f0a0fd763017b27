"""One HTML file that shows runs: curves over runs, the curriculum, every kept rollout.

Imports results and records. Read reading (a run's folder to plain records), figures (curves
with intervals over runs), packing (rollouts, compressed in chunks that a browser opens on
demand) and page, which puts them into the files of page/. Nothing is fetched when the file
is opened, and text of programs and problems is data there, never markup.
"""
