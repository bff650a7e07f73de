"""Signs of tables and drawings that ASCII lacks, and what stands for each where it has to."""

PLAIN = {"×": "x", "·": "-", "→": "->", "…": "...", "Δ": "d", "–": "-", "—": "-", "█": "#", "µ": "u", "²": "^2"}
PLAIN |= {"±": "+-", "√": "sqrt "}
