"""Grading that can be trusted: scores come from the cluster and from recorded answers, never from the notebook.

Vocabulary
    submission  the file that a student handed in; of it, only the code of task cells is used
    graft       to put that code into the trusted notebook, by step
    sandbox     where the kernel runs: bubblewrap, a user that nobody is, no network but the doors it is given
    door        one address inside of the sandbox that leads to one address of the cluster
    arena       what one submission runs against: a cluster in its pristine state, or none
    unit        grading one submission in one arena; the batch loop runs units, and so could Kubernetes Jobs
    grade       what it comes to: score, steps, messages; `rejected` when it is no notebook of the lab

Modules, from the outside in
    discover archive submission   what was handed in, read within limits
    graft                         the trusted notebook with the student's cells (pure)
    batch worker unit             all of them, each in a process of its own, each once
    engine kernel                 papermill's walk over the cells, and the loop that talks to a hostile kernel
    sandbox inside cgroups relay  where it runs, and its ways out
    arena pristine access         the cluster before and after, and what a student may do on it
    bare                          the same where there is no cluster yet: machines made anew for each submission
    results write report exports  what is written down
    scratch                       temporary folders
    limits                        what one submission may use up

On a node, `look.pl` is the only thing that a student's key can run when a lab looks and does not touch.
"""
