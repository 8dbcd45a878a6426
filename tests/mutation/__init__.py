"""Mutation testing of the conformance suite: break our server in one place after another and see whether a case notices.

    python -m tests.mutation --count 300 --seed 1 --results score.jsonl   # a sample of all mutants; run again, it goes on
    python -m tests.mutation --module server/memory.py                    # the mutants of one module
    python -m tests.mutation --again tests/mutation/score.json            # the survivors of a run once more, after new cases
    python -m tests.mutation --report score.jsonl                         # the score, and the survivors

Each mutant is one change in one function of what a peer's requests pass through (`mutants`). A process that has imported the server
and never served forks a server with the change (`zygote`); the cases run in this one, so that a fault in the codec can't hide from
itself. The cases are those of `conform` and those of `vectors play`, for 3.6.1 and 8.0.0, and for two
older versions whether nodes fit their ops. First it is found out which lines of the
server each case reaches (`reach`); a mutant is then shown only the cases that reach its line, and is killed by the first that
finds a fault which the server without a change does not show, or a refusal of what that one computes (`killing`). `survivors.json`
says of each survivor of the run that `score.json` keeps why nobody sees it; a mutant on a line that no case reaches survives like
any other.
"""
