CREATE TABLE IF NOT EXISTS outbox (
    id                  BIGSERIAL PRIMARY KEY,
    create_time         TIMESTAMP WITH TIME ZONE NOT NULL,
    kafka_topic         VARCHAR(249) NOT NULL,
    kafka_key           VARCHAR(100) NOT NULL,  -- as long as your keys are
    kafka_value         VARCHAR(10000),         -- as long as your values are; NULL is a tombstone
    kafka_header_keys   TEXT[] NOT NULL,        -- '{}' for none
    kafka_header_values TEXT[] NOT NULL,        -- as many as keys
    leader_id           UUID                    -- harvestd's; leave it NULL
);
