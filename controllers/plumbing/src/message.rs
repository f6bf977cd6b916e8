//! Messages for people: what somebody else says is cut, so that the remedy behind it is not.

use springtide_crds::common::bounded_text;

/// `before`, foreign words and `after` as one message of at most `max_bytes` of its JSON form: it is the words that are
/// cut. The texts around them have to leave room for some.
pub fn quoting(before: &str, words: &str, after: &str, max_bytes: usize) -> String {
    let room = max_bytes.saturating_sub(before.len().saturating_add(after.len()));
    format!("{before}{}{after}", bounded_text(words, room))
}

/// How many there are of something: `1 pod`, `2 pods`.
pub fn count(number: u32, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_are_cut_and_the_remedy_is_not() {
        assert_eq!(quoting("a: ", "b", "; c", 100), "a: b; c");
        let message = quoting("refused: ", &"\"word\" ".repeat(100), "; change the wish", 100);
        assert!(message.starts_with("refused: \"word\"") && message.ends_with("...; change the wish"));
        let bytes = serde_json::to_string(&message).unwrap().len() - 2;
        assert!(bytes <= 100, "{bytes}");
        let none = quoting(&"x".repeat(100), "words", "; remedy", 100);
        assert!(none.ends_with("; remedy"), "{none}");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|number| count(number, "pod")), ["0 pods", "1 pod", "2 pods"]);
    }
}
