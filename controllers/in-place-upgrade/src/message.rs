//! Messages for people, as long as a condition of an InPlaceUpgrade may have them.

use springtide_crds::in_place_upgrade::MESSAGE_MAX_BYTES;
use springtide_plumbing::message;

pub use springtide_plumbing::message::count;

/// `before`, foreign words and `after` as one message of at most [`MESSAGE_MAX_BYTES`]: it is the words that are cut.
pub fn quoting(before: &str, words: &str, after: &str) -> String {
    message::quoting(before, words, after, MESSAGE_MAX_BYTES)
}
