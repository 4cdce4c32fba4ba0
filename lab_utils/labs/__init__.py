"""What a lab is, from its one source to a learner's progress.

Vocabulary
    lab       a notebook with tasks; its name is NN-topic, like "08-services"; "08" or "8" finds it too
    source    solutions/NN-topic/lab.md: prose, tasks, solutions, hints and points, all in one place
    step      a task with a name and points; one code cell of the notebook, one function in checks.py
    release   labs/NN-topic/lab.ipynb and lab.json, written by `lab build` from the source
    check     a function that looks at the cluster, and at answers, after a step
    answer    a plain JSON value that a learner gives with lab.answer(step, value)
    sighting  something a check has seen on the cluster, written down so that a later check can ask if it is gone
    fault     something broken on purpose by lab.inject(name), with what it takes to undo it
    learner   an id, made once per machine; from it and the lab's name come the numbers that vary

Modules
    source     lab.md → cells (pure)               release    cells → lab.ipynb and lab.json (pure)
    spec       what a lab declares, by a schema    catalog    where labs lie, and finding one by name
    outcome    what checks say                     answers    which values are answers, and their file
    store      progress, sightings and faults      workspace  a lab on a cluster: names and helpers
    context    what a check is given               lifecycle  prepare, needs, clean up
"""
