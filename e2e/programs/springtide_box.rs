//! `springtide-box`: the one program inside the test images, and the first
//! process of a real node's namespaces.
//!
//! It needs nothing but the kernel: plain `rustc`, no crates, linked
//! statically, so that an image made of it is one small layer. It is not part
//! of the workspace's library; `springtide_e2e::node::program` compiles it, with
//! `http.rs`, into the cache of the user.
//!
//! ```text
//! springtide-box pause [TEXT]              print TEXT, reap children until SIGTERM or SIGINT, end with 0
//! springtide-box sleep SECONDS [MESSAGE]   end with 0 after SECONDS, with 143 on SIGTERM or SIGINT
//! springtide-box exit CODE [MESSAGE]       end with CODE at once
//! springtide-box alloc BYTES [MESSAGE]     touch BYTES of memory step by step, then end with 0
//! springtide-box hold BYTES SECONDS [MESSAGE]   the same, and keep them for SECONDS before the end
//! springtide-box print TEXT...             print TEXT
//! springtide-box burn                      keep a processor busy until killed; SIGTERM is ignored
//! springtide-box burn BYTES SECONDS [MESSAGE]   as hold, with a processor kept busy for SECONDS
//! springtide-box serve PORT ROUNDS         answer each byte on a connection by one, after ROUNDS of arithmetic
//! springtide-box ask ADDRESS RATE SECONDS  send RATE requests a second to such a server; print each one's microseconds
//! springtide-box http PORT TEXT [FILE [ANSWERS]]   answer HTTP requests by TEXT, and /lines by FILE, to which TEXT is added
//!                                          first; leave in peace on SIGTERM; close each connection after ANSWERS
//! springtide-box get ADDRESS PATH          print what such a server answers
//! springtide-box note FILE TEXT [SECONDS]  add the line TEXT to FILE, and end with 0 after SECONDS
//! springtide-box load ADDRESS RATE SECONDS send RATE requests a second to such a server; print how many had no answer
//! ```
//!
//! SECONDS may have a fraction. BYTES is a whole number with an optional suffix
//! `Ki`, `Mi` or `Gi`. MESSAGE goes to the container's termination message
//! before anything else happens: to the file that `TERMINATION_LOG` names, or
//! `/dev/termination-log`. A wrong command line ends with 64.

mod http;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::exit;
use std::time::{Duration, Instant};

/// EX_USAGE of sysexits.h: no verb ends with it otherwise, so a test sees a
/// wrong command line as such.
const USAGE: i32 = 64;
/// What a shell reports for a process ended by SIGTERM (128 + 15).
const TERMINATED: i32 = 143;
/// What a shell reports for a program that cannot go on.
const FAILED: i32 = 1;
/// Connections of who asks: as many requests may be under way before one waits for another.
const LANES: u32 = 8;
/// Small against every limit that a test sets, large against a page.
const STEP: usize = 1 << 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let code = match args.as_slice() {
        ["pause", text @ ..] if text.len() <= 1 => pause(text.first().copied()),
        ["sleep", seconds, message @ ..] if message.len() <= 1 => {
            match seconds.parse().map(Duration::try_from_secs_f64) {
                Ok(Ok(time)) => sleep(time, message.first().copied()),
                Ok(Err(_)) | Err(_) => usage(&format!("SECONDS: {seconds:?} is no number of seconds")),
            }
        }
        ["exit", code, message @ ..] if message.len() <= 1 => match code.parse::<u8>() {
            Ok(code) => {
                terminate_with(message.first().copied());
                i32::from(code)
            }
            Err(_) => usage(&format!("CODE: {code:?} is not within 0..=255")),
        },
        ["alloc", bytes, message @ ..] if message.len() <= 1 => match parse_bytes(bytes) {
            Some(bytes) => alloc(bytes, &Then::End, message.first().copied()),
            None => usage(&format!("BYTES: {bytes:?} is no size such as 1048576 or 256Mi")),
        },
        [verb @ ("hold" | "burn"), bytes, seconds, message @ ..] if message.len() <= 1 => {
            match (parse_bytes(bytes), seconds.parse().map(Duration::try_from_secs_f64)) {
                (Some(bytes), Ok(Ok(time))) => {
                    let then = if *verb == "burn" { Then::Burn(time) } else { Then::Sleep(time) };
                    alloc(bytes, &then, message.first().copied())
                }
                (_, Ok(Ok(_))) => usage(&format!("BYTES: {bytes:?} is no size such as 1048576 or 256Mi")),
                (_, Ok(Err(_)) | Err(_)) => usage(&format!("SECONDS: {seconds:?} is no number of seconds")),
            }
        }
        ["print", text @ ..] => print(&text.join(" ")),
        ["burn"] => burn(),
        ["serve", port, rounds] => match (port.parse(), rounds.parse()) {
            (Ok(port), Ok(rounds)) => serve(port, rounds),
            (Err(_), _) | (_, Err(_)) => usage(&format!("{port:?} or {rounds:?} is no number")),
        },
        ["ask", address, rate, seconds] => match (rate.parse(), seconds.parse()) {
            (Ok(rate), Ok(seconds)) if rate > 0 => ask(address, rate, seconds),
            (Ok(_), Ok(_)) | (Err(_), _) | (_, Err(_)) => {
                usage(&format!("{rate:?} or {seconds:?} is no number, or 0"))
            }
        },
        ["http", port, text, more @ ..] if more.len() <= 2 => {
            let answers = more.get(1).map_or(Ok(u64::MAX), |answers| answers.parse());
            match (port.parse(), answers) {
                (Ok(port), Ok(answers)) if answers > 0 => {
                    http::serve(port, text, more.first().copied(), answers)
                }
                (Ok(_), Ok(_)) | (Err(_), _) | (_, Err(_)) => {
                    usage(&format!("PORT or ANSWERS of {port:?}, {more:?} is no number, or 0"))
                }
            }
        }
        ["get", address, path] => http::get(address, path),
        ["note", file, text, seconds @ ..] if seconds.len() <= 1 => {
            let seconds = seconds.first().copied().unwrap_or("0");
            match seconds.parse().map(Duration::try_from_secs_f64) {
                Ok(Ok(time)) => note(file, text, time),
                Ok(Err(_)) | Err(_) => usage(&format!("SECONDS: {seconds:?} is no number of seconds")),
            }
        }
        ["load", address, rate, seconds] => match (rate.parse(), seconds.parse()) {
            (Ok(rate), Ok(seconds)) if rate > 0 => http::load(address, rate, seconds),
            (Ok(_), Ok(_)) | (Err(_), _) | (_, Err(_)) => {
                usage(&format!("{rate:?} or {seconds:?} is no number, or 0"))
            }
        },
        other => usage(&format!("unknown command line {other:?}")),
    };
    exit(code);
}

fn usage(why: &str) -> i32 {
    eprintln!("springtide-box: {why}");
    eprintln!(
        "usage: springtide-box pause [TEXT] | sleep SECONDS [MESSAGE] | exit CODE [MESSAGE] | alloc BYTES [MESSAGE] | hold BYTES SECONDS [MESSAGE] | print TEXT... | burn [BYTES SECONDS [MESSAGE]] | serve PORT ROUNDS | ask ADDRESS RATE SECONDS | http PORT TEXT [FILE [ANSWERS]] | get ADDRESS PATH | note FILE TEXT [SECONDS] | load ADDRESS RATE SECONDS"
    );
    USAGE
}

/// A closed standard output is no reason to fail: nobody listens.
fn print(text: &str) -> i32 {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    0
}

/// Kubernetes reads at most 4 kB of this file into the container's status.
fn terminate_with(message: Option<&str>) {
    let Some(message) = message else { return };
    let path = std::env::var("TERMINATION_LOG").unwrap_or_else(|_| "/dev/termination-log".to_owned());
    if let Err(error) = std::fs::write(&path, message) {
        eprintln!("springtide-box: termination message to {path}: {error}");
    }
}

/// `pause` is the first process of a PID namespace: whoever loses its parent
/// there becomes its child and stays a zombie until it is reaped.
fn pause(text: Option<&str>) -> i32 {
    let signals = signals::Blocked::new(&[signals::TERM, signals::INT, signals::CHILD]);
    if let Some(text) = text {
        print(text);
    }
    loop {
        signals::reap();
        match signals.wait(None) {
            Some(signals::TERM | signals::INT) => return 0,
            Some(_) | None => {}
        }
    }
}

fn sleep(time: Duration, message: Option<&str>) -> i32 {
    let signals = signals::Blocked::new(&[signals::TERM, signals::INT]);
    terminate_with(message);
    match signals.wait(Some(time)) {
        Some(_) => TERMINATED,
        None => 0,
    }
}

fn note(file: &str, text: &str, time: Duration) -> i32 {
    match http::note(file, text) {
        Ok(()) => sleep(time, None),
        Err(error) => {
            eprintln!("springtide-box: {file}: {error}");
            FAILED
        }
    }
}

/// What is done once memory has been touched.
enum Then {
    /// Nothing.
    End,
    /// It is kept.
    Sleep(Duration),
    /// It is kept, and a processor is busy.
    Burn(Duration),
}

fn alloc(bytes: usize, then: &Then, message: Option<&str>) -> i32 {
    let signals = match then {
        Then::End => None,
        Then::Sleep(_) | Then::Burn(_) => Some(signals::Blocked::new(&[signals::TERM, signals::INT])),
    };
    terminate_with(message);
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut total = 0;
    while total < bytes {
        let step = STEP.min(bytes - total);
        // Written, not zeroed: the kernel gives a zero page to who only asks.
        held.push(vec![0xa5; step]);
        total += step;
    }
    std::hint::black_box(&held);
    print(&format!("touched {total} bytes"));
    let ended = signals.and_then(|signals| match then {
        Then::End => None,
        Then::Sleep(time) => signals.wait(Some(*time)),
        Then::Burn(time) => burn_for(*time, &signals),
    });
    std::hint::black_box(&held);
    if ended.is_some() { TERMINATED } else { 0 }
}

/// Work that takes time only where it gets a processor.
fn compute(rounds: u64) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..rounds {
        // Marsaglia's xorshift, which no compiler computes beforehand.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    std::hint::black_box(state)
}

fn burn() -> i32 {
    let _signals = signals::Blocked::new(&[signals::TERM, signals::INT]);
    loop {
        compute(1 << 20);
    }
}

/// Until the time is over, or a signal comes: that one.
fn burn_for(time: Duration, signals: &signals::Blocked) -> Option<std::ffi::c_int> {
    let begun = Instant::now();
    while begun.elapsed() < time {
        compute(1 << 16);
        if let Some(signal) = signals.wait(Some(Duration::ZERO)) {
            return Some(signal);
        }
    }
    None
}

fn serve(port: u16, rounds: u64) -> i32 {
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("springtide-box: port {port}: {error}");
            return FAILED;
        }
    };
    for connection in listener.incoming().flatten() {
        std::thread::spawn(move || answer(connection, rounds));
    }
    FAILED
}

/// Until the other side is gone, or does not listen.
fn answer(mut connection: TcpStream, rounds: u64) -> Option<()> {
    connection.set_nodelay(true).ok()?;
    let mut request = [0];
    loop {
        connection.read_exact(&mut request).ok()?;
        compute(rounds);
        connection.write_all(&request).ok()?;
    }
}

/// Each request has its time, and its latency counts from there: one that is sent late, as the answer to the one before
/// it was late, has waited as well.
fn ask(address: &str, rate: u32, seconds: u32) -> i32 {
    let count = rate * seconds / LANES;
    let start = Instant::now() + Duration::from_millis(100);
    let lane = |lane: u32| -> std::io::Result<Vec<u128>> {
        let mut connection = TcpStream::connect(address)?;
        connection.set_nodelay(true)?;
        let mut latencies = Vec::new();
        for number in 0..count {
            let due = start + due(rate, u64::from(number * LANES + lane));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let mut byte = [0];
            connection.write_all(&byte)?;
            connection.read_exact(&mut byte)?;
            latencies.push(due.elapsed().as_micros());
        }
        Ok(latencies)
    };
    let latencies: std::io::Result<Vec<Vec<u128>>> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|number| scope.spawn(move || lane(number))).collect();
        let gone = || std::io::Error::other("a thread has ended");
        lanes.into_iter().map(|lane| lane.join().unwrap_or_else(|_| Err(gone()))).collect()
    });
    match latencies {
        Ok(latencies) => {
            let lines: Vec<String> = latencies.iter().flatten().map(u128::to_string).collect();
            print(&lines.join("\n"))
        }
        Err(error) => {
            eprintln!("springtide-box: {address}: {error}");
            FAILED
        }
    }
}

/// When a request is due, by its number.
fn due(rate: u32, number: u64) -> Duration {
    Duration::from_nanos(number * 1_000_000_000 / u64::from(rate))
}

fn parse_bytes(text: &str) -> Option<usize> {
    let (number, shift) = [("Ki", 10), ("Mi", 20), ("Gi", 30)]
        .iter()
        .find_map(|(suffix, shift)| Some((text.strip_suffix(suffix)?, *shift)))
        .unwrap_or((text, 0));
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

/// Everything that the standard library has no word for. The declarations are
/// those of glibc and musl on 64-bit Linux.
mod signals {
    use super::{Duration, Instant};
    use std::ffi::{c_int, c_long};
    use std::ptr;

    pub const INT: c_int = 2;
    pub const TERM: c_int = 15;
    pub const CHILD: c_int = 17;
    const BLOCK: c_int = 0;
    const NO_HANG: c_int = 1;

    /// 1024 bits, the size of `sigset_t` in both C libraries.
    #[repr(C)]
    struct Set([u64; 16]);

    #[repr(C)]
    struct Time {
        seconds: i64,
        nanoseconds: c_long,
    }

    unsafe extern "C" {
        fn pthread_sigmask(how: c_int, set: *const Set, old: *mut Set) -> c_int;
        fn sigtimedwait(set: *const Set, info: *mut u8, timeout: *const Time) -> c_int;
        fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    }

    /// Signals that no longer act by themselves: they wait to be taken. A
    /// process with PID 1 gets no signal whose action is the default, but it
    /// does get blocked ones.
    pub struct Blocked(Set);

    impl Blocked {
        pub fn new(signals: &[c_int]) -> Self {
            let mut set = Set([0; 16]);
            for signal in signals {
                set.0[0] |= 1 << (signal - 1);
            }
            // SAFETY: `set` has the layout that the C library expects; there is
            // only this thread.
            unsafe { pthread_sigmask(BLOCK, &set, ptr::null_mut()) };
            Self(set)
        }

        /// The next signal, or `None` when `time` has passed without one.
        pub fn wait(&self, time: Option<Duration>) -> Option<c_int> {
            let end = time.and_then(|time| Instant::now().checked_add(time));
            loop {
                let left = end.map(|end| end.saturating_duration_since(Instant::now()));
                let timeout = left.map(|left| Time {
                    seconds: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    nanoseconds: c_long::from(left.subsec_nanos()),
                });
                let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
                // SAFETY: both pointers are to live values of the right layout
                // or null, which means "no information" and "for ever".
                let signal = unsafe { sigtimedwait(&self.0, ptr::null_mut(), timeout) };
                if signal > 0 {
                    return Some(signal);
                }
                // Interrupted (a stop and continue, for instance) or timed out.
                if left.is_some_and(|left| left.is_zero()) {
                    return None;
                }
            }
        }
    }

    /// Takes the exit status of every child that has ended.
    pub fn reap() {
        // SAFETY: a null status is allowed and means that nobody wants it.
        while unsafe { waitpid(-1, ptr::null_mut(), NO_HANG) } > 0 {}
    }
}
