"""What is simulated: tables, servers, ranks. Descriptions only; what happens in them is ``tests.simulation``."""
