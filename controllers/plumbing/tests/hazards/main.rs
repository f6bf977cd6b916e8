//! Probes: each asserts that something in kube, because of which plumbing has a way of its own, is still
//! so. One that fails after an upgrade says that its workaround can go.
//!
//! | # | hazard of kube 5.0 | probe |
//! |---|---|---|
//! | K1 | shared streams stall and drop deletes (kube#1590) | `streams::a_subscriber_sleeps_for_ever_behind_a_deleted_object`, `streams::subscribers_learn_of_no_delete`, `streams::one_subscriber_that_does_not_read_stalls_all` |
//! | K2 | `wait_until_ready` wakes one of several waiters | `streams::one_of_several_that_wait_for_a_store_is_woken` |
//! | K3 | bounded concurrency starves keys | `controller::bounded_concurrency_starves_keys` |
//! | K4 | one failing watch slows all triggers | `controller::one_failing_watch_slows_all_triggers` |
//! | K5 | `any_semantic` is inert unless `page_size` is `None` | `watching::any_semantic_is_inert_unless_page_size_is_none` |
//! | K6 | a limit in `poll_ready` holds leases | `client::a_limit_on_the_client_holds_a_lease_behind_writes` |
//! | K7 | no event for deletes during a broken watch | `watching::no_event_tells_of_deletes_during_a_broken_watch` |
//! | K8 | the default retry sends a POST again | `client::the_default_client_sends_a_post_again` |
//! | K9 | an added layer sits outside the retry | `client::a_layer_sees_one_request_where_three_are_sent` |
//! | K10 | HTTP 410 on a watch's start loops on one version | `watching::a_410_on_watch_start_loops_on_one_version` |
//! | K11 | a streaming list at version 0 may go back in time | `watching::a_streaming_list_is_asked_for_at_version_0` |
//! | K12 | bookmarks and versions that go back are hidden | `watching::bookmarks_are_hidden_and_older_versions_followed` |
//! | K13 | a blackhole is noticed after 295 s; one fixed timeout | `watching::a_blackhole_is_noticed_after_295_seconds_and_the_timeout_is_fixed` |
//! | K14 | the recorder calls per publish, and sends the old note | `recorder::each_publish_is_a_call_and_bears_the_first_note` |
//! | K15 | `predicates::generation` hides deletes and finalizers | `streams::a_filter_on_generation_hides_finalizers_and_deletes` |
//! | K16 | no backoff per key, no priority, no metrics of the queue (kube#1916) | `controller::a_failing_key_is_run_at_one_pace`, `controller::an_event_shortens_a_running_backoff`, `controller::what_is_being_deleted_waits_among_the_rest`; that no metrics exist is no behaviour to probe |
#![allow(clippy::disallowed_types, reason = "the client is what is tested here")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../watch_wire/wire.rs"]
#[allow(dead_code, reason = "the watch tests use all of it")]
mod watch_wire;
#[path = "../pipeline/wire.rs"]
#[allow(dead_code, reason = "the pipeline tests use all of it")]
mod wire;

mod client;
mod controller;
mod recorder;
mod streams;
mod watching;
