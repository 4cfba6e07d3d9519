//! The main job in one process with nothing installed: proxy, broker, store, player and API, a real origin, curl.

use crate::support::curl::try_curl;
use crate::support::httpbin::Httpbin;
use crate::support::httpbin_requests::{
    REQUESTS, assert_answered_as_recorded, assert_replayed_as_recorded, authority, record_all,
    wait_for_records,
};
use crate::support::node::Node;

#[test]
fn records_answers_and_replays_every_endpoint_of_httpbin_in_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut origin = Httpbin::start(0);
    let upstream = origin.url();
    let mut arguments = vec!["standalone", "--upstream", upstream.as_str()];
    for listener in ["--listen", "--answer", "--api", "--broker"] {
        arguments.extend([listener, "127.0.0.1:0"]);
    }
    let mut node = Node::with_arguments(folder.path(), &arguments);
    let recorded_at = authority(node.url("record")).to_owned();

    let recorded = record_all(node.url("record"));
    wait_for_records(&node, REQUESTS.len() as u64);
    origin.stop();
    let direct = try_curl(&origin.url(), &[]);
    assert!(direct.is_err(), "the origin still answers: {direct:?}");
    assert_answered_as_recorded(&recorded, node.url("answer"), &recorded_at);

    // What is stored outlives the process; answers and replays come from it alone.
    node.kill_and_restart();
    assert_answered_as_recorded(&recorded, node.url("answer"), &recorded_at);
    let copy = Httpbin::start(0);
    assert_replayed_as_recorded(&node, &copy.url());
    assert_eq!(node.process().terminate(), Some(0), "ends in order");
}
