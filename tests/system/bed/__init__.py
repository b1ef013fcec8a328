"""The test bed: real servers, the daemon, what disturbs them, and who judges the outcome.

postgres   a private Postgres server          kafka     a private Kafka broker
daemon     harvestd as a process              proxy     a TCP proxy that hurts connections
writer     applications that write records    consumer  reads everything back
checker    compares: lost, invented, corrupted, overtaken, duplicates
embed      a program that embeds harvests
goharvest  a program that does in a group and to a table what goharvest does
"""
