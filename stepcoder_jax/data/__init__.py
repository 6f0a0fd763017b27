"""Where problems come from: files in many formats, a generated benchmark, a built set.

Imports records, execution (to run solutions) and feedback (what stages a problem has).
`problems.read_any` is the way in: it tells formats/ and evalplus/ apart. generated/ is the
benchmark that ships; curation/ finds what is wrong with a set; building/ makes an
ArrayRecord set of it; tokenizer trains one on its texts; refinements are the records of
self-debugging.
"""
