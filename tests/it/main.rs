//! Every integration test, in one binary. The modules can be run by name: `cargo test proxy_test`.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test says by a panic that it failed, and its helpers are public to their neighbours"
)]

mod support;
mod architecture_test;
mod asyncapi_test;
mod sync_test;
mod mqtt_test;
mod mqtt_integration_test;
mod mqtt_transport_test;
mod mqtt_persistence_test;
mod proxy_test;
mod http_peers_test;
mod grpc_test;
mod websocket_test;
mod websocket_playback_test;
mod forward_proxy_test;
mod playback_test;
mod record_test;
mod demo_test;
mod dashboard_test;
mod end_to_end_test;
mod standalone_test;
mod auto_replay_test;
mod redis_playback_test;
mod redis_players_test;
mod tcp_playback_test;
mod tcp_protocols_test;
mod large_body_test;
mod ledger_test;
mod config_test;
mod bad_input_test;
mod passage_test;
mod exhaustion_test;
mod api_test;
mod encryption_test;
mod incomplete_test;
