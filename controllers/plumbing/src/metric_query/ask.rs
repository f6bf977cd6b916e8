//! One instant query.

use super::Reading;
use super::address::Address;
use super::answer::{problem, read};
use crate::outbound::{Connector, Target, with_causes};
use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use std::time::Duration;
use tokio::time::timeout;

/// How long an answer may take, all told.
const DEADLINE: Duration = Duration::from_secs(5);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 65_536;
/// Where the API takes instant queries.
const PATH: &str = "/api/v1/query";

/// Asks for the value of an expression now, over a connection of its own. It is a POST, as an expression may be longer
/// than what proxies take for a URL.
pub(super) async fn ask(connector: &Connector, address: &Address, expression: &str) -> Reading {
    match timeout(DEADLINE, exchange(connector, address, expression)).await {
        Ok(Ok(reading)) => reading,
        Ok(Err(text)) => problem(text),
        Err(_) => problem(format!("no answer within {} s", DEADLINE.as_secs())),
    }
}

async fn exchange(connector: &Connector, address: &Address, expression: &str) -> Result<Reading, String> {
    let url = address.url(PATH);
    let target = Target::parse(&url).ok_or_else(|| format!("{address} is no address"))?;
    let mut connection = connector.connect(&target).await.map_err(|obstacle| obstacle.to_string())?;
    let form = form(expression);
    let mut request = Request::new(Full::new(Bytes::from(form)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.path().parse().map_err(|_| format!("{address} is no address"))?;
    let host = HeaderValue::from_str(&target.authority()).map_err(|_| format!("{address} is no address"))?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    let agent = concat!("springtide/", env!("CARGO_PKG_VERSION"), " metric-query");
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let broke = |error: hyper::Error| format!("the connection broke: {}", with_causes(&error));
    connection.ready().await.map_err(broke)?;
    let (head, body) = connection.send_request(request).await.map_err(broke)?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            format!("its answer is longer than {ANSWER_BYTES_MAX} bytes")
        } else {
            format!("the connection broke: {}", with_causes(error.as_ref()))
        }
    })?;
    Ok(read(head.status, &body.to_bytes()))
}

/// The form of a request: all but letters and digits is escaped, as `application/x-www-form-urlencoded` lets one do.
fn form(expression: &str) -> String {
    let mut form = format!("timeout={}s&query=", DEADLINE.as_secs());
    for byte in expression.bytes() {
        if byte.is_ascii_alphanumeric() {
            form.push(char::from(byte));
        } else {
            form.push_str(&format!("%{byte:02X}"));
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::AddressPolicy;
    use std::path::PathBuf;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// What is answered by somebody who sends these bytes, and what he was asked.
    async fn answer(bytes: Vec<u8>) -> (Reading, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}/prefix", listener.local_addr().unwrap()).parse().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            // Who asks may have had enough.
            let _ = stream.write_all(&bytes).await;
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let connector = Connector::new(PathBuf::new(), AddressPolicy::unrestricted());
        let reading = ask(&connector, &address, "sum(rate(a{b=\"c\"}[5m])) > 0").await;
        (reading, server.await.unwrap())
    }

    fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[tokio::test]
    async fn an_expression_is_posted_as_a_form_without_credentials_and_its_value_read() {
        let body = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"3.5"]}}"#;
        let (reading, request) = answer(response("200 OK", "", body)).await;
        assert_eq!(reading, Reading::Value(3.5));
        assert!(request.starts_with("POST /prefix/api/v1/query HTTP/1.1\r\n"), "{request}");
        let form = "timeout=5s&query=sum%28rate%28a%7Bb%3D%22c%22%7D%5B5m%5D%29%29%20%3E%200";
        assert!(request.ends_with(form), "{request}");
        let lower = request.to_ascii_lowercase();
        assert!(!lower.contains("authorization") && !lower.contains("cookie"), "{request}");
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed_and_a_long_answer_not_read() {
        let (reading, _) = answer(response("302 Found", "location: http://127.0.0.1:1/\r\n", "")).await;
        let Reading::Error(text) = reading else { panic!("{reading:?}") };
        assert!(text.contains("redirects are not followed"), "{text}");
        let long = format!("\"{}\"", "x".repeat(ANSWER_BYTES_MAX));
        let (reading, _) = answer(response("200 OK", "", &long)).await;
        let Reading::Error(text) = reading else { panic!("{reading:?}") };
        assert!(text.contains("longer than 65536 bytes"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_given_up() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let connector = Connector::new(PathBuf::new(), AddressPolicy::unrestricted());
        let reading = ask(&connector, &address, "up").await;
        let Reading::Error(text) = reading else { panic!("{reading:?}") };
        assert!(text.contains("within"), "{text}");
    }
}
