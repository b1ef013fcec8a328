# harvestd: publishes the rows of a Postgres outbox table to Kafka. `make help` lists what can be made.
