use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use cxl_cram_wire::protocol::{Bytes, Event, Exit, Ran, Stream, VERSION};

use super::*;

struct Harness {
    port: UnixStream,
    lines: BufReader<UnixStream>,
    agent: Option<JoinHandle<io::Result<()>>>,
}

impl Harness {
    fn start() -> Self {
        let (port, theirs) = UnixStream::pair().unwrap();
        port.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let hello = Hello { version: VERSION, kernel: "1.2.3".into(), modules: Vec::new() };
        let reader = theirs.try_clone().unwrap();
        let agent = Some(thread::spawn(move || serve(reader, Box::new(theirs), hello)));
        let mut harness = Self { lines: BufReader::new(port.try_clone().unwrap()), port, agent };
        assert!(matches!(harness.next(), Message::Hello(Hello { version: VERSION, .. })));
        harness
    }

    fn send(&mut self, line: &str) {
        writeln!(self.port, "{line}").unwrap();
    }

    fn next(&mut self) -> Message {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn answer(&mut self, wanted: u64) -> Outcome {
        loop {
            match self.next() {
                Message::Answer { id: Some(id), outcome } if id == wanted => return outcome,
                Message::Event(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn ran(&mut self, id: u64) -> Ran {
        match self.answer(id) {
            Outcome::Done(Reply::Ran(ran)) => ran,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.port.shutdown(Shutdown::Write).unwrap();
        let ended = self.agent.take().unwrap().join().unwrap();
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}

#[test]
fn a_program_runs_with_its_input_and_environment() {
    let mut harness = Harness::start();
    harness.send(
        r#"{"id":1,"call":"run","argv":["sh","-c","cat; echo $WORD >&2; exit 3"],"env":[["WORD","hi"]],"stdin":"in","timeout_ms":30000}"#,
    );
    let ran = harness.ran(1);
    assert_eq!((ran.exit, ran.timed_out, ran.truncated), (Exit::Code(3), false, false));
    assert_eq!((&*ran.stdout.text(), &*ran.stderr.text()), ("in", "hi\n"));
}

#[test]
fn a_long_program_holds_up_no_other_and_ends_at_its_limit() {
    let mut harness = Harness::start();
    harness.send(r#"{"id":1,"call":"run","argv":["sh","-c","echo begun; sleep 1000 & wait"],"timeout_ms":2000}"#);
    harness.send(r#"{"id":2,"call":"hello"}"#);
    assert!(matches!(harness.answer(2), Outcome::Done(Reply::Hello(_))));
    let ran = harness.ran(1);
    assert_eq!((ran.exit, ran.timed_out), (Exit::Signal(9), true));
    assert_eq!(ran.stdout.text(), "begun\n");
}

#[test]
fn too_much_output_is_cut_and_said_to_be() {
    let mut harness = Harness::start();
    harness.send(r#"{"id":1,"call":"run","argv":["head","-c","5000000","/dev/zero"],"timeout_ms":30000}"#);
    let ran = harness.ran(1);
    assert_eq!(
        (ran.exit, ran.truncated, ran.stdout.0.len()),
        (Exit::Code(0), true, cxl_cram_wire::protocol::MAX_BYTES)
    );
}

#[test]
fn a_spawned_program_is_talked_to_line_by_line() {
    let mut harness = Harness::start();
    harness.send(r#"{"id":1,"call":"spawn","argv":["sh","-c","while read l; do echo got $l; done; echo end >&2"]}"#);
    assert!(matches!(harness.answer(1), Outcome::Done(Reply::Spawned { child: 1, .. })));
    harness.send(r#"{"id":2,"call":"stdin","child":1,"data":"one\ntwo\n"}"#);
    harness.send(r#"{"id":3,"call":"close_stdin","child":1}"#);
    let mut events = Vec::new();
    while !matches!(events.last(), Some(Event::Exited { .. })) {
        if let Message::Event(event) = harness.next() {
            events.push(event);
        }
    }
    let lines = |wanted: Stream| -> Vec<&str> {
        let of = |event| match event {
            &Event::Output { stream, ref line, .. } if stream == wanted => Some(line.as_str()),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    };
    // The two streams may arrive in any order.
    assert_eq!((lines(Stream::Stdout), lines(Stream::Stderr)), (vec!["got one", "got two"], vec!["end"]));
    assert_eq!(events.last(), Some(&Event::Exited { child: 1, exit: Exit::Code(0) }));
    harness.send(r#"{"id":4,"call":"stdin","child":1,"data":"late"}"#);
    assert!(matches!(harness.answer(4), Outcome::Failed(_)));
}

#[test]
fn closing_the_input_of_a_program_that_has_exited_is_no_error() {
    let mut harness = Harness::start();
    harness.send(r#"{"id":1,"call":"spawn","argv":["true"]}"#);
    harness.answer(1);
    while !matches!(harness.next(), Message::Event(Event::Exited { .. })) {}
    harness.send(r#"{"id":2,"call":"close_stdin","child":1}"#);
    assert!(matches!(harness.answer(2), Outcome::Done(Reply::Nothing)));
    for never_started in [0, 2] {
        harness.send(&format!(r#"{{"id":3,"call":"close_stdin","child":{never_started}}}"#));
        assert!(matches!(harness.answer(3), Outcome::Failed(_)));
    }
}

#[test]
fn a_spawned_program_is_killed_by_signal() {
    let mut harness = Harness::start();
    harness.send(r#"{"id":1,"call":"spawn","argv":["sleep","1000"]}"#);
    harness.answer(1);
    harness.send(r#"{"id":2,"call":"kill","child":1,"signal":15}"#);
    loop {
        if let Message::Event(event) = harness.next() {
            assert_eq!(event, Event::Exited { child: 1, exit: Exit::Signal(15) });
            break;
        }
    }
}

#[test]
fn files_are_written_read_listed_and_waited_for() {
    let directory = std::env::temp_dir().join(format!("cxl-cram-files-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("state");
    let path = path.to_str().unwrap();
    let mut harness = Harness::start();
    harness.send(&format!(
        r#"{{"id":1,"call":"wait_for","condition":{{"until":"is","path":"{path}","text":"online"}},"timeout_ms":30000}}"#
    ));
    harness.send(&format!(r#"{{"id":2,"call":"write_file","path":"{path}","data":"online\n"}}"#));
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        match harness.next() {
            Message::Answer { outcome: Outcome::Done(reply), .. } => outcomes.push(reply),
            other => panic!("{other:?}"),
        }
    }
    assert!(outcomes.contains(&Reply::Nothing));
    harness.send(&format!(r#"{{"id":3,"call":"read_file","path":"{path}","limit":3}}"#));
    assert_eq!(harness.answer(3), Outcome::Done(Reply::File { data: Bytes::from("onl"), truncated: true }));
    let listed = directory.to_str().unwrap();
    harness.send(&format!(r#"{{"id":4,"call":"list_dir","path":"{listed}"}}"#));
    assert_eq!(harness.answer(4), Outcome::Done(Reply::Names { names: vec!["state".into()] }));
    harness.send(&format!(
        r#"{{"id":5,"call":"wait_for","condition":{{"until":"gone","path":"{path}"}},"timeout_ms":10}}"#
    ));
    assert!(matches!(harness.answer(5), Outcome::Failed(Failure { errno: Some(libc::ETIMEDOUT), .. })));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn lines_that_are_no_requests_are_answered_and_the_next_is_served() {
    let mut harness = Harness::start();
    for (line, id) in [
        ("nonsense", None),
        ("", None),
        ("{}", None),
        (r#"{"id":5,"call":"dance"}"#, Some(5)),
        (r#"{"id":6,"call":"run"}"#, Some(6)),
        (r#"{"id":-1,"call":"hello"}"#, None),
    ] {
        harness.send(line);
        match harness.next() {
            Message::Answer { id: found, outcome: Outcome::Failed(_) } => assert_eq!(found, id, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
    for line in [
        r#"{"id":7,"call":"run","argv":[],"timeout_ms":1}"#,
        r#"{"id":7,"call":"run","argv":["/nonexistent"],"timeout_ms":1}"#,
        r#"{"id":7,"call":"kill","child":9,"signal":9}"#,
        r#"{"id":7,"call":"trace_start","instance":"../x","events":[]}"#,
        r#"{"id":7,"call":"trace_stop","instance":"none"}"#,
    ] {
        harness.send(line);
        assert!(matches!(harness.answer(7), Outcome::Failed(_)), "{line}");
    }
    harness.send(r#"{"id":8,"call":"sync"}"#);
    assert_eq!(harness.answer(8), Outcome::Done(Reply::Nothing));
}

#[test]
fn a_line_beyond_the_limit_is_dropped_up_to_its_end() {
    let mut input = &b"0123456789\nab\nrest"[..];
    assert_eq!(read_line(&mut input, 4).unwrap(), Line::TooLong);
    assert_eq!(read_line(&mut input, 4).unwrap(), Line::Whole(b"ab".to_vec()));
    assert_eq!(read_line(&mut input, 4).unwrap(), Line::End);
}
