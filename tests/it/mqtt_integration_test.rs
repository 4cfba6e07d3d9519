//! The MQTT client against real brokers: Mosquitto, RabbitMQ and NATS, and peers that are not ours.

mod every_broker;
mod mosquitto;
mod python;
mod examples;
