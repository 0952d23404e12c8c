use cxl_cram_wire::memory::Advice;

use super::*;

fn session(orders: &[&str]) -> Vec<Answer> {
    let mut output = Vec::new();
    serve(orders.join("\n").as_bytes(), &mut output).unwrap();
    String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn done(answer: &Answer) -> &Done {
    match &answer.result {
        Outcome::Done(done) => done,
        Outcome::Failed(failure) => panic!("{failure}"),
    }
}

#[test]
fn what_is_filled_verifies_and_another_pattern_does_not() {
    let answers = session(&[
        r#"{"id":1,"task":"map","bytes":65536}"#,
        r#"{"id":2,"task":"fill","range":{"map":1},"pattern":"random","seed":5}"#,
        r#"{"id":3,"task":"verify","range":{"map":1},"pattern":"random","seed":5}"#,
        r#"{"id":4,"task":"fill","range":{"map":1,"first":3,"pages":2},"pattern":"zero"}"#,
        r#"{"id":5,"task":"verify","range":{"map":1},"pattern":"random","seed":5}"#,
        r#"{"id":6,"task":"verify","range":{"map":1,"first":5},"pattern":"random","seed":5}"#,
    ]);
    let verdict = |index: usize| match done(&answers[index]) {
        Done::Verified { verdict, .. } => verdict.clone(),
        other => panic!("{other:?}"),
    };
    assert!(verdict(2).clean());
    assert_eq!(verdict(2).pages, 16);
    assert_eq!((verdict(4).pages_wrong, verdict(4).first[0].page), (2, 3));
    assert_eq!((verdict(5).pages, verdict(5).clean()), (11, true));
}

#[test]
fn a_file_fills_memory_over_and_over() {
    let path = std::env::temp_dir().join(format!("cxl-cram-source-{}", std::process::id()));
    let mut content = vec![1; PAGE];
    content.extend([2; 100]);
    std::fs::write(&path, &content).unwrap();
    let mut session = Session::default();
    session.map(4 * PAGE as u64, None, false, false, false).unwrap();
    let pattern = Pattern::File { path: path.to_str().unwrap().into(), offset: 0 };
    session.perform(Task::Fill { range: Range::all(1), pattern: pattern.clone() }).unwrap();
    let region = session.maps.get_mut(&1).unwrap();
    assert_eq!(region.page(2), &[1; PAGE]);
    assert_eq!(region.page(3)[..101], *[[2; 100].as_slice(), &[0]].concat());
    let Done::Verified { verdict, .. } = session.perform(Task::Verify { range: Range::all(1), pattern }).unwrap()
    else {
        panic!()
    };
    assert!(verdict.clean());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn threads_that_share_neighbouring_pages_verify_what_they_wrote() {
    let answers = session(&[
        r#"{"id":1,"task":"map","bytes":131072}"#,
        r#"{"id":2,"task":"churn","range":{"map":1,"first":3,"pages":20},"threads":3,"rounds":4,"seed":7}"#,
        r#"{"id":3,"task":"verify","range":{"map":1},"pattern":"zero"}"#,
    ]);
    let Done::Churned { verdict, passes, moved } = done(&answers[1]) else { panic!("{:?}", answers[1]) };
    assert_eq!((verdict.pages, verdict.clean(), *passes, *moved), (80, true, 0, 0));
    let Done::Verified { verdict, .. } = done(&answers[2]) else { panic!("{:?}", answers[2]) };
    assert_eq!(verdict.pages_wrong, 20, "no other page was written");
}

#[test]
fn pages_of_a_file_are_its_own_until_they_are_written() {
    let path = std::env::temp_dir().join(format!("cxl-cram-map-{}", std::process::id()));
    std::fs::write(&path, vec![3; 2 * PAGE]).unwrap();
    let mut session = Session::default();
    let map = |bytes| Task::MapCached { path: path.to_str().unwrap().into(), bytes, node: 0 };
    session.perform(map(2 * PAGE as u64)).unwrap();
    let region = session.maps.get_mut(&1).unwrap();
    assert_eq!(region.page(1), &[3; PAGE]);
    region.page(1).fill(4);
    assert_eq!(std::fs::read(&path).unwrap(), vec![3; 2 * PAGE]);
    assert!(session.perform(map(100)).is_err());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn pages_move_to_a_node_and_one_that_does_not_exist_is_refused() {
    let answers = session(&[
        r#"{"id":1,"task":"map","bytes":16384,"populate":true}"#,
        r#"{"id":2,"task":"move_pages","range":{"map":1},"nodes":[0]}"#,
        r#"{"id":3,"task":"move_pages","range":{"map":1},"nodes":[900]}"#,
        r#"{"id":4,"task":"bind","range":{"map":1},"policy":"bind","nodes":[900]}"#,
        r#"{"id":5,"task":"bind","range":{"map":1},"policy":"interleave","nodes":[0],"migrate":true}"#,
        r#"{"id":6,"task":"bind","range":{"map":1},"policy":"bind","nodes":[4000]}"#,
        r#"{"id":7,"task":"move_pages","range":{"map":1},"nodes":[]}"#,
    ]);
    assert_eq!(done(&answers[1]), &Done::Nodes { nodes: vec![(0, 4)], absent: vec![] });
    done(&answers[4]);
    for index in [2, 3, 5, 6] {
        assert!(matches!(answers[index].result, Outcome::Failed(_)), "{:?}", answers[index]);
    }
}

#[test]
fn freed_pages_are_absent_and_read_zero() {
    let mut session = Session::default();
    session.map(4 * PAGE as u64, None, true, false, false).unwrap();
    session.perform(Task::Fill { range: Range::all(1), pattern: Pattern::Same { word: 9 } }).unwrap();
    session.perform(Task::Advise { range: Range::pages(1, 0, 3), advice: Advice::DontNeed }).unwrap();
    let range = Range::pages(1, 0, 3);
    let Done::Verified { verdict, .. } = session.perform(Task::Verify { range, pattern: Pattern::Zero }).unwrap()
    else {
        panic!()
    };
    assert!(verdict.clean());
    session.perform(Task::Advise { range, advice: Advice::DontNeed }).unwrap();
    // Check the serialized form: an answer must parse back.
    let answer = session.answer(r#"{"id":1,"task":"nodes","range":{"map":1}}"#);
    let answer: Answer = serde_json::from_str(&serde_json::to_string(&answer).unwrap()).unwrap();
    let Done::Nodes { nodes, absent } = done(&answer) else { panic!("{answer:?}") };
    assert_eq!((nodes.iter().map(|(_, pages)| pages).sum::<u64>(), absent), (1, &vec![(libc::ENOENT, 3)]));
    assert_eq!(session.perform(Task::Free { map: 1 }), Ok(Done::Nothing));
    assert!(session.perform(Task::Free { map: 1 }).is_err());
}

#[test]
fn bad_orders_are_refused_and_the_next_is_served() {
    let answers = session(&[
        "nonsense",
        r#"{"id":2,"task":"dance"}"#,
        r#"{"id":3,"task":"map","bytes":100}"#,
        r#"{"id":4,"task":"map","bytes":0}"#,
        r#"{"id":5,"task":"map","bytes":18446744073709547520}"#,
        r#"{"id":6,"task":"map","bytes":4096,"node":4000}"#,
        r#"{"id":7,"task":"map","bytes":8192}"#,
        r#"{"id":8,"task":"touch","range":{"map":1,"first":2},"rounds":1}"#,
        r#"{"id":9,"task":"touch","range":{"map":1,"first":18446744073709551615,"pages":2},"rounds":1}"#,
        r#"{"id":10,"task":"fill","range":{"map":1},"pattern":"file","path":"/nonexistent"}"#,
        r#"{"id":11,"task":"touch","range":{"map":1},"write":true,"rounds":2}"#,
    ]);
    let failed: Vec<bool> = answers.iter().map(|answer| matches!(answer.result, Outcome::Failed(_))).collect();
    assert_eq!(failed, [true, true, true, true, true, true, false, true, true, true, false]);
    assert_eq!(answers[0].id, None);
    assert_eq!(answers[1].id, Some(2));
}

#[test]
fn what_is_written_to_a_shared_mapping_is_in_the_file() {
    let path = std::env::temp_dir().join(format!("cxl-cram-shared-{}", std::process::id()));
    std::fs::write(&path, [0; 2 * PAGE]).unwrap();
    let mut session = Session::default();
    let name = path.to_str().unwrap().to_owned();
    session.perform(Task::MapShared { path: name.clone(), bytes: 2 * PAGE as u64 }).unwrap();
    session.perform(Task::Fill { range: Range::pages(1, 1, 1), pattern: Pattern::Same { word: 7 } }).unwrap();
    let content = std::fs::read(&path).unwrap();
    assert_eq!((content[0], content[PAGE]), (0, 7));
    assert!(session.perform(Task::MapShared { path: name, bytes: 100 }).is_err(), "not whole pages");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn whichever_way_pages_are_written_they_hold_what_was_written() {
    let ways = ["store", "parent", "mprotect", "mremap", "process_vm", "proc_mem", "read", "vmsplice", "spliced"];
    for way in ways {
        let answers = session(&[
            r#"{"id":1,"task":"map","bytes":8192}"#,
            r#"{"id":2,"task":"fill","range":{"map":1},"pattern":"random","seed":1}"#,
            &format!(r#"{{"id":3,"task":"write","range":{{"map":1}},"way":"{way}","pattern":"random","seed":2}}"#),
            r#"{"id":4,"task":"verify","range":{"map":1},"pattern":"random","seed":2}"#,
        ]);
        assert!(matches!(done(&answers[3]), Done::Verified { verdict, .. } if verdict.clean()), "{way}: {answers:?}");
    }
}

#[test]
fn what_a_child_writes_its_parent_does_not_read() {
    let answers = session(&[
        r#"{"id":1,"task":"map","bytes":8192}"#,
        r#"{"id":2,"task":"fill","range":{"map":1},"pattern":"random","seed":1}"#,
        r#"{"id":3,"task":"write","range":{"map":1},"way":"child","pattern":"random","seed":2}"#,
        r#"{"id":4,"task":"verify","range":{"map":1},"pattern":"random","seed":1}"#,
    ]);
    assert!(matches!(done(&answers[2]), Done::Took { pages: 2, .. }), "{answers:?}");
    assert!(matches!(done(&answers[3]), Done::Verified { verdict, .. } if verdict.clean()), "{answers:?}");
}

#[test]
fn pages_are_named_to_a_file_by_address_and_length() {
    let path = std::env::temp_dir().join(format!("cxl-cram-named-{}", std::process::id()));
    std::fs::write(&path, "").unwrap();
    let path_text = path.to_str().unwrap();
    let answers = session(&[
        r#"{"id":1,"task":"map","bytes":65536}"#,
        &format!(r#"{{"id":2,"task":"name_to","range":{{"map":1,"first":2,"pages":3}},"path":"{path_text}"}}"#),
        r#"{"id":3,"task":"name_to","range":{"map":1},"path":"/nowhere/at/all"}"#,
    ]);
    let named = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let Done::Mapped { address, .. } = done(&answers[0]) else { panic!("{answers:?}") };
    assert_eq!(done(&answers[1]), &Done::Nothing);
    assert_eq!(named, format!("{:#x} 0x3000", address + 0x2000));
    assert!(matches!(&answers[2].result, Outcome::Failed(failure) if failure.errno == Some(libc::ENOENT)));
}

#[test]
fn a_policy_of_a_node_that_does_not_exist_is_refused() {
    let answers = session(&[
        r#"{"id":1,"task":"set_policy","policy":"bind","nodes":[1000]}"#,
        r#"{"id":2,"task":"set_policy","policy":"default"}"#,
    ]);
    assert!(matches!(&answers[0].result, Outcome::Failed(failure) if failure.errno == Some(libc::EINVAL)));
    assert_eq!(done(&answers[1]), &Done::Nothing);
}

#[test]
fn counters_that_are_raced_lose_nothing_where_nothing_is_lost() {
    let answers = session(&[
        r#"{"id":1,"task":"map","bytes":131072}"#,
        r#"{"id":2,"task":"race","range":{"map":1},"readers":2,"writers":2,"rounds":300,"node":0}"#,
        r#"{"id":3,"task":"race","range":{"map":1},"readers":2,"writers":0,"rounds":1,"node":0}"#,
        r#"{"id":4,"task":"race","range":{"map":1},"readers":64,"writers":1,"rounds":1,"node":0}"#,
    ]);
    let Done::Raced(raced) = done(&answers[1]) else { panic!("{:?}", answers[1]) };
    assert_eq!((raced.backward, raced.torn, raced.lost, raced.stopped), (0, 0, 0, None));
    assert!(raced.reads >= 64 && raced.writes >= 9600 && raced.passes > 0, "{raced:?}");
    assert!(answers[2..].iter().all(|answer| matches!(answer.result, Outcome::Failed(_))));
}

#[test]
fn latencies_are_told_by_their_ranks() {
    let each: Vec<u64> = (1..=200).rev().collect();
    let found = Latencies::of(each, 7);
    assert_eq!(
        (found.pages, found.whole, found.median, found.p90, found.p99, found.most),
        (200, 7, 101, 181, 199, 200)
    );
    assert_eq!(Latencies::of(Vec::new(), 0), Latencies::default());
    let answers = session(&[
        r#"{"id":1,"task":"map","bytes":65536}"#,
        r#"{"id":2,"task":"latency","range":{"map":1},"write":true}"#,
    ]);
    let Done::Latencies(found) = done(&answers[1]) else { panic!("{:?}", answers[1]) };
    assert_eq!(found.pages, 16);
    assert!(found.median <= found.p90 && found.most <= found.whole, "{found:?}");
}
