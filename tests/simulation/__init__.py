"""A network, disks and a clock for the cores that ship: whole runs in one process, over several lives of a job.

``simulation`` drives ``Rank0Core`` and one ``RankCore`` for each ``rank``, over a ``world`` of servers. It decides
nothing: what must hold is in ``tests.laws``. ``python -m tests.simulation`` runs new seeds.
"""
