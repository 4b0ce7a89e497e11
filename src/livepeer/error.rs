//! The body of a refusal, written so that every known client can read it.
//!
//! go-livepeer and its thin SDKs read `error.message`; the generated AI SDKs read
//! `detail.msg` and fail to parse anything else. So both are always written.

use std::borrow::Cow;

use serde::Deserialize;

/// Returns the JSON body that carries `message` to every kind of client.
pub fn body(message: &str) -> String {
    serde_json::json!({ "error": { "message": message }, "detail": { "msg": message } }).to_string()
}

/// Reads the message out of the body of somebody else's refusal: either JSON form, or plain
/// text. At most [`MAX_MESSAGE`] bytes, on one line, without control characters.
pub fn message(body: &[u8]) -> String {
    let body = &body[..body.len().min(MAX_BODY)];
    let found = serde_json::from_slice::<Refusal<'_>>(body).ok().and_then(Refusal::message);
    let text = found.unwrap_or_else(|| String::from_utf8_lossy(body));
    let clean: String =
        text.trim().chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
    let mut end = clean.len().min(MAX_MESSAGE);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    clean[..end].trim_end().to_owned()
}

/// The longest message taken from outside, in bytes: one line of a log.
pub const MAX_MESSAGE: usize = 512;

/// How much of a refusal's body is looked at, in bytes.
const MAX_BODY: usize = 8 * 1024;

#[derive(Deserialize)]
struct Refusal<'a> {
    #[serde(borrow, default)]
    error: Option<Text<'a>>,
    #[serde(borrow, default)]
    detail: Option<Text<'a>>,
}

impl<'a> Refusal<'a> {
    fn message(self) -> Option<Cow<'a, str>> {
        [self.error, self.detail].into_iter().flatten().find_map(|it| match it {
            Text::Plain(text) => Some(text),
            Text::Message { message } => Some(message),
            Text::Msg { msg } => Some(msg),
            Text::Other(_) => None,
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text<'a> {
    Plain(Cow<'a, str>),
    Message { message: Cow<'a, str> },
    Msg { msg: Cow<'a, str> },
    Other(serde::de::IgnoredAny),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: &str) {
        assert_eq!(message(body.as_bytes()), expected);
    }

    #[test]
    fn every_form_of_refusal_gives_its_message() {
        check(&body("no \"room\""), "no \"room\"");
        check(r#"{"error":{"message":"bad"}}"#, "bad");
        check(r#"{"detail":{"msg":"worse"}}"#, "worse");
        check(r#"{"error":"short"}"#, "short");
        check(
            r#"{"detail":[{"msg":"field required"}]}"#,
            r#"{"detail":[{"msg":"field required"}]}"#,
        );
        check("no capacity available for runner\n", "no capacity available for runner");
        check("two\r\nlines", "two  lines");
        check("", "");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let long = "é".repeat(MAX_MESSAGE);
        assert_eq!(message(long.as_bytes()).len(), MAX_MESSAGE);
        assert_eq!(message(format!("x{long}").as_bytes()).len(), MAX_MESSAGE - 1);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_a_bounded_line(bytes: Vec<u8>) {
            let text = message(&bytes);
            assert!(text.len() <= MAX_MESSAGE && !text.contains(char::is_control));
        }
    }
}
