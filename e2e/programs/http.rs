//! A server that leaves without losing a request, and clients that count what they lose.

use std::collections::BTreeMap;
use std::fs::{File, read_to_string};
use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::{FAILED, due, print, signals, terminate_with};

/// The server's last answer on each connection is on the way.
static CLOSING: AtomicBool = AtomicBool::new(false);
/// Connections that are open.
static OPEN: AtomicUsize = AtomicUsize::new(0);
/// Clients: as many requests may be under way before one waits for another. Every other one keeps its connection.
const CLIENTS: u32 = 16;
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at what a server waits for at its end.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest head of a request or an answer; both sides are ours.
const HEAD_MAX: usize = 4096;
/// Failures that are told word by word: the termination message has 4 kB.
const FAILURES_SHOWN: usize = 8;
/// What is asked for to get the lines of a server's file.
const LINES: &str = "/lines";

/// Answers every request by `text`, and one for [`LINES`] by the lines of `file`, to which it adds `text` first. After
/// SIGTERM each connection is closed with its next answer, as the header then says, and the program ends when none is
/// open; whoever does not want to wait for idle ones kills it. A connection is closed so after `answers` too.
pub(super) fn serve(port: u16, text: &str, file: Option<&str>, answers: u64) -> i32 {
    // Before there are threads, so that it holds for all of them.
    let signals = signals::Blocked::new(&[signals::TERM, signals::INT]);
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("springtide-box: port {port}: {error}");
            return FAILED;
        }
    };
    if let Some(file) = file
        && let Err(error) = note(file, text)
    {
        // It serves all the same: not every pod has a volume there.
        eprintln!("springtide-box: {file}: {error}");
    }
    let (text, file) = (text.to_owned(), file.map(str::to_owned));
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            OPEN.fetch_add(1, SeqCst);
            let (text, file) = (text.clone(), file.clone());
            std::thread::spawn(move || {
                // The other side is gone, or says what no client of ours would.
                let _ = answer(connection, &text, file.as_deref(), answers);
                OPEN.fetch_sub(1, SeqCst);
            });
        }
    });
    signals.wait(None);
    CLOSING.store(true, SeqCst);
    // A connection may have been accepted by the kernel and not by us.
    let mut quiet = 0;
    while quiet < 5 {
        std::thread::sleep(PAUSE);
        quiet = if OPEN.load(SeqCst) == 0 { quiet + 1 } else { 0 };
    }
    0
}

/// Adds a line to a file, which is made where there is none.
pub(super) fn note(file: &str, line: &str) -> Result<()> {
    File::options().append(true).create(true).open(file)?.write_all(format!("{line}\n").as_bytes())
}

fn answer(mut connection: TcpStream, text: &str, file: Option<&str>, answers: u64) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut read = Vec::new();
    let mut left = answers;
    while let Some(head) = head(&mut connection, &mut read)? {
        let asks_for_lines = head.split(' ').nth(1) == Some(LINES);
        let lines = file.filter(|_| asks_for_lines).map(read_to_string).transpose()?;
        let text = lines.as_deref().unwrap_or(text);
        left = left.saturating_sub(1);
        let closing = CLOSING.load(SeqCst) || left == 0;
        let close = if closing { "Connection: close\r\n" } else { "" };
        let length = text.len();
        write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{close}\r\n{text}")?;
        if closing {
            break;
        }
    }
    Ok(())
}

/// The next head on a connection, without what stands behind it; `None` where the connection has ended before.
fn head(connection: &mut TcpStream, read: &mut Vec<u8>) -> Result<Option<String>> {
    loop {
        if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = read.drain(..end + 4).collect();
            return String::from_utf8(head).map(Some).map_err(|_| ErrorKind::InvalidData.into());
        }
        if read.len() > HEAD_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        if !more(connection, read)? {
            return if read.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// Whether there was more before the end.
fn more(connection: &mut TcpStream, read: &mut Vec<u8>) -> Result<bool> {
    let mut bytes = [0; 1024];
    let count = connection.read(&mut bytes)?;
    read.extend_from_slice(&bytes[..count]);
    Ok(count > 0)
}

/// What a client has seen.
#[derive(Default)]
struct Seen {
    answered: u64,
    failed: u64,
    connections: u64,
    slowest: u128,
    /// How long each request that was answered took, in microseconds.
    took: Vec<u32>,
    texts: BTreeMap<String, u64>,
    failures: Vec<String>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.connections += other.connections;
        self.slowest = self.slowest.max(other.slowest);
        self.took.extend(other.took);
        for (text, count) in other.texts {
            *self.texts.entry(text).or_default() += count;
        }
        self.failures.extend(other.failures);
        self.failures.truncate(FAILURES_SHOWN);
    }

    fn json(&self) -> String {
        let texts: Vec<String> =
            self.texts.iter().map(|(text, count)| format!("{}:{count}", quoted(text))).collect();
        let failures: Vec<String> = self.failures.iter().map(|failure| quoted(failure)).collect();
        let mut took = self.took.clone();
        took.sort_unstable();
        let [p50, p99] = [50, 99].map(|percent| below(&took, percent));
        format!(
            r#"{{"answered":{},"failed":{},"connections":{},"slowestMicros":{},"p50Micros":{p50},"p99Micros":{p99},"texts":{{{}}},"failures":[{}]}}"#,
            self.answered,
            self.failed,
            self.connections,
            self.slowest,
            texts.join(","),
            failures.join(",")
        )
    }
}

/// The value that so many percent of sorted ones do not exceed; 0 of none.
fn below(sorted: &[u32], percent: usize) -> u32 {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

fn quoted(text: &str) -> String {
    let plain = |c: char| if c.is_control() || matches!(c, '"' | '\\') { '_' } else { c };
    format!("\"{}\"", text.chars().take(200).map(plain).collect::<String>())
}

/// Sends `rate` requests a second, or until SIGTERM; half of the clients open a connection for each, the others keep
/// theirs. A request that is not answered has failed, and is not sent again. Prints what each half has seen, and leaves
/// it in the termination message.
pub(super) fn load(address: &str, rate: u32, seconds: u32) -> i32 {
    let Ok(address) = address.parse::<SocketAddr>() else {
        eprintln!("springtide-box: {address:?} is no address with a port");
        return super::USAGE;
    };
    let signals = signals::Blocked::new(&[signals::TERM, signals::INT]);
    let start = Instant::now() + Duration::from_millis(100);
    let client = move |client: u32| {
        let mut seen = Seen::default();
        let mut kept = None;
        for number in 0..u64::from(rate) * u64::from(seconds) / u64::from(CLIENTS) {
            let due = start + due(rate, number * u64::from(CLIENTS) + u64::from(client));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if CLOSING.load(SeqCst) {
                break;
            }
            let begun = Instant::now();
            match request(address, "/", kept.take(), &mut seen) {
                Ok((text, connection)) => {
                    seen.answered += 1;
                    seen.took.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
                    *seen.texts.entry(text).or_default() += 1;
                    kept = connection.filter(|_| client % 2 == 1);
                }
                Err(error) => {
                    seen.failed += 1;
                    seen.failures.push(format!("after {:?}: {error}", start.elapsed()));
                    seen.failures.truncate(FAILURES_SHOWN);
                }
            }
            seen.slowest = seen.slowest.max(begun.elapsed().as_micros());
        }
        seen
    };
    let clients: Vec<_> =
        (0..CLIENTS).map(|number| (number, std::thread::spawn(move || client(number)))).collect();
    while clients.iter().any(|(_, client)| !client.is_finished()) {
        if signals.wait(Some(PAUSE)).is_some() {
            CLOSING.store(true, SeqCst);
        }
    }
    let (mut new, mut kept) = (Seen::default(), Seen::default());
    for (number, client) in clients {
        let half = if number % 2 == 1 { &mut kept } else { &mut new };
        match client.join() {
            Ok(seen) => half.add(seen),
            Err(_) => return FAILED,
        }
    }
    let millis = start.elapsed().as_millis();
    let seen = format!(r#"{{"new":{},"kept":{},"millis":{millis}}}"#, new.json(), kept.json());
    terminate_with(Some(&seen));
    print(&seen)
}

/// Prints what a server answers to one request.
pub(super) fn get(address: &str, path: &str) -> i32 {
    let Ok(address) = address.parse::<SocketAddr>() else {
        eprintln!("springtide-box: {address:?} is no address with a port");
        return super::USAGE;
    };
    match request(address, path, None, &mut Seen::default()) {
        Ok((text, _)) => print(text.trim_end()),
        Err(error) => {
            eprintln!("springtide-box: {address}: {error}");
            FAILED
        }
    }
}

/// One request on a connection that was kept, or a new one; the text of its answer, and the connection where the server
/// lets it be kept.
fn request(
    address: SocketAddr,
    path: &str,
    kept: Option<TcpStream>,
    seen: &mut Seen,
) -> Result<(String, Option<TcpStream>)> {
    let mut connection = match kept {
        Some(connection) => connection,
        None => {
            seen.connections += 1;
            let connection = TcpStream::connect_timeout(&address, PATIENCE)?;
            connection.set_nodelay(true)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            connection
        }
    };
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    let mut read = Vec::new();
    let head = head(&mut connection, &mut read)?.ok_or(Error::from(ErrorKind::ConnectionAborted))?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(Error::other(head.lines().next().unwrap_or_default().to_owned()));
    }
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let length: usize =
        header("Content-Length").and_then(|length| length.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    while read.len() < length {
        if !more(&mut connection, &mut read)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let text = String::from_utf8(read).map_err(|_| ErrorKind::InvalidData)?;
    Ok((text, (header("Connection") != Some("close")).then_some(connection)))
}
