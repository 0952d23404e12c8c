use cxl_cram_guest::agent;
use cxl_cram_wire::protocol::{Exit, Program, Run, Stream, VERSION};

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

/// A channel to the real agent, which runs in a thread here.
fn with_agent() -> (Channel, Sender<Infallible>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let hello = Hello { version: VERSION, kernel: "test".into(), modules: Vec::new() };
    let reader = theirs.try_clone().unwrap();
    thread::spawn(move || agent::serve(reader, Box::new(theirs), hello));
    let (alive, machine_gone) = bounded(0);
    (Channel::new(ours, machine_gone).unwrap(), alive)
}

fn run(argv: &[&str]) -> Call {
    let program = Program::new(argv.iter().copied());
    Call::Run(Run { program, timeout_ms: 30_000, ..Run::default() })
}

#[test]
fn calls_from_many_threads_get_their_own_answers() {
    let (channel, _alive) = with_agent();
    assert_eq!(channel.hello(LIMIT).unwrap().kernel, "test");
    thread::scope(|scope| {
        for number in 0..8 {
            let channel = &channel;
            scope.spawn(move || {
                let word = number.to_string();
                let Reply::Ran(ran) = channel.call(run(&["echo", &word]), LIMIT).unwrap() else { panic!() };
                assert_eq!(ran.stdout.text().trim(), word);
            });
        }
    });
}

#[test]
fn a_failed_call_returns_its_error_and_the_channel_still_works() {
    let (channel, _alive) = with_agent();
    let call = Call::ReadFile { path: "/nonexistent".into(), limit: None };
    let Err(ChannelError::Refused(failure)) = channel.call(call, LIMIT) else { panic!() };
    assert_eq!(failure.errno, Some(2));
    assert!(channel.call(Call::Hello, LIMIT).is_ok());
}

#[test]
fn events_wait_for_their_follower() {
    let (channel, _alive) = with_agent();
    let program = Program::new(["sh", "-c", "echo early"]);
    let Reply::Spawned { child, .. } = channel.call(Call::Spawn(program), LIMIT).unwrap() else { panic!() };
    let events = channel.follow(Followed::Program(child));
    let output = Event::Output { child, stream: Stream::Stdout, line: "early".into() };
    assert_eq!(channel.wait(&events, LIMIT).unwrap(), output);
    assert_eq!(channel.wait(&events, LIMIT).unwrap(), Event::Exited { child, exit: Exit::Code(0) });
}

#[test]
fn a_wait_ends_at_its_limit() {
    let (channel, _alive) = with_agent();
    let limit = Duration::from_millis(10);
    assert!(matches!(channel.call(run(&["sleep", "5"]), limit), Err(ChannelError::TimedOut(_))));
    assert!(channel.call(Call::Hello, LIMIT).is_ok());
}

#[test]
fn a_second_hello_ends_waits_for_the_previous_agent() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (_alive, machine_gone) = bounded(0);
    let channel = Channel::new(ours, machine_gone).unwrap();
    let hello = Message::Hello(Hello { version: VERSION, kernel: "test".into(), modules: Vec::new() });
    let hello = serde_json::to_string(&hello).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| channel.call(Call::Hello, LIMIT));
        // The agent receives the call and restarts before it answers.
        BufReader::new(&theirs).read_line(&mut String::new()).unwrap();
        writeln!(&theirs, "{hello}\n{hello}").unwrap();
        assert!(matches!(waiter.join().unwrap(), Err(ChannelError::Closed)));
    });
}

#[test]
fn a_restart_drops_the_events_of_earlier_programs() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (_alive, machine_gone) = bounded(0);
    let channel = Channel::new(ours, machine_gone).unwrap();
    let send = |message: &Message| writeln!(&theirs, "{}", serde_json::to_string(message).unwrap()).unwrap();
    let hello = Message::Hello(Hello { version: VERSION, kernel: "test".into(), modules: Vec::new() });
    let exited = |code| Message::Event(Event::Exited { child: 1, exit: Exit::Code(code) });
    for exit in [exited(9), exited(0)] {
        send(&hello);
        send(&exit);
        channel.hello(LIMIT).unwrap();
    }
    let event = channel.wait(&channel.follow(Followed::Program(1)), LIMIT).unwrap();
    assert_eq!(event, Event::Exited { child: 1, exit: Exit::Code(0) });
}

#[test]
fn waits_end_when_the_machine_dies_or_the_port_closes() {
    let (channel, alive) = with_agent();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| channel.call(run(&["sleep", "5"]), LIMIT));
        drop(alive);
        assert!(matches!(waiter.join().unwrap(), Err(ChannelError::Closed)));
    });

    let (ours, theirs) = UnixStream::pair().unwrap();
    let (_alive, machine_gone) = bounded(0);
    let channel = Channel::new(ours, machine_gone).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| channel.call(Call::Sync, LIMIT));
        drop(theirs);
        assert!(matches!(waiter.join().unwrap(), Err(ChannelError::Closed)));
    });
    assert!(matches!(channel.call(Call::Sync, LIMIT), Err(ChannelError::Closed)));
}

#[test]
fn invalid_lines_are_skipped() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (_alive, machine_gone) = bounded(0);
    let channel = Channel::new(ours, machine_gone).unwrap();
    theirs.write_all(b"nonsense\n{}\n\xff\n").unwrap();
    theirs.write_all(b"{\"kind\":\"answer\",\"id\":77,\"outcome\":{\"done\":{\"reply\":\"nothing\"}}}\n").unwrap();
    theirs.write_all(b"{\"kind\":\"hello\",\"version\":9,\"kernel\":\"k\",\"modules\":[]}\n").unwrap();
    assert_eq!(channel.hello(LIMIT).unwrap().version, 9);
    // The guest was restarted.
    theirs.write_all(b"{\"kind\":\"hello\",\"version\":10,\"kernel\":\"k\",\"modules\":[]}\n").unwrap();
    assert_eq!(channel.hello(LIMIT).unwrap().version, 10);
}
