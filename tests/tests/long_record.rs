//! An incident whose record is several MiB: each page of it is bounded, all pages are all of it, and reading takes as
//! much longer as there is more.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use sentinel_tests::daemon::{Daemon, said};
use sentinel_tests::payload::Alert;
use serde_json::Value;

/// What a page may have: its text, and the last event that is put on it.
const PAGE: usize = (1 << 20) + (64 << 10);

/// How often a run may call; and how many runs the longer of the two incidents has.
const CALLS: usize = 4000;
const OFTEN: usize = 4;

/// Policies of so many steps, each of which looks again and again at a container that is not there, until it is cut off.
fn policies(all: &[(&str, usize)]) -> String {
    let mut text = "policies:\n".to_owned();
    for (name, steps) in all {
        let step = "{ plugin: hostile, timeout: 4m, params: { behaviour: call-flood } }";
        let steps = vec![step; *steps].join(", ");
        write!(
            text,
            r#"
  - name: {name}
    match: ['alertname="{name}"']
    target: docker://local/infra-sentinel-none-{name}
    mode: auto
    steps: [{steps}]
    verify: {{ docker: running, within: 1s, steady: 0s }}
    guards: {{ cooldown: 1s, flapping: off }}
    grants:
      docker: {{ containers: ['infra-sentinel-none-*'], actions: [inspect] }}
"#
        )
        .unwrap();
    }
    text
}

fn memory(daemon: &Daemon, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

/// All pages of an incident, as they come.
async fn pages(daemon: &Daemon, id: u64) -> Vec<String> {
    let (mut pages, mut after) = (Vec::new(), 0);
    loop {
        let (status, page) = daemon
            .get(&format!("/api/v1/incidents/{id}?after={after}"))
            .await
            .unwrap();
        assert!(status.is_success(), "{page}");
        let next = serde_json::from_str::<Value>(&page).unwrap()["next"].as_u64();
        pages.push(page);
        match next {
            Some(next) => {
                assert!(next > after);
                after = next;
            }
            None => return pages,
        }
    }
}

fn events(page: &str) -> Vec<Value> {
    let mut page: Value = serde_json::from_str(page).unwrap();
    page["events"].as_array_mut().unwrap().split_off(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_several_mib_comes_in_bounded_pages_and_in_bounded_time() {
    let mut daemon = Daemon::prepare(&["hostile"], &policies(&[("once", 1), ("often", OFTEN)]));
    daemon.write_config(&format!(
        "limits: {{ plugin: {{ calls: {CALLS}, calls_per_second: 100000, cpu: 4m }} }}\n"
    ));
    // Each call that is refused is a line.
    daemon.set("SENTINEL_LOG_LEVEL", "error");
    daemon.serve().await;
    for (id, name) in [(1, "once"), (2, "often")] {
        daemon.deliver(&[Alert::firing(name, &[])]).await;
        daemon
            .wait_state(id, Duration::from_secs(300), |incident| {
                incident["end"].as_str().map(ToOwned::to_owned)
            })
            .await;
    }
    let mut sizes = Vec::new();
    let mut times = Vec::new();
    for (id, steps) in [(1, 1), (2, OFTEN)] {
        let all = pages(&daemon, id).await;
        assert!(all.len() > 2, "{} pages", all.len());
        for page in &all {
            assert!(page.len() < PAGE, "{} bytes", page.len());
        }
        let size: usize = all.iter().map(String::len).sum();
        sizes.push(size);
        // Nothing is there twice, nothing is missing: the same lines, page by page of another size.
        let mut whole: Vec<_> = all.iter().flat_map(|page| events(page)).collect();
        let count = whole.len();
        assert!(count > CALLS * steps, "{count}");
        let mut after = count - 5;
        while after < count {
            let page = daemon
                .json(&format!("/api/v1/incidents/{id}?after={after}&limit=1"))
                .await;
            assert_eq!(page["events"].as_array().unwrap().len(), 1);
            assert_eq!(page["events"][0], whole[after]);
            after += 1;
        }
        let begun = Instant::now();
        let shown =
            said(&mut daemon.command(&["incidents", "show", &id.to_string(), "--output", "json"]));
        let command = begun.elapsed();
        let told = shown.json()["events"].as_array_mut().unwrap().split_off(0);
        assert!(
            told == whole.split_off(0),
            "the command tells something else"
        );
        let mut fastest = Duration::MAX;
        for _ in 0..5 {
            let begun = Instant::now();
            drop(
                daemon
                    .get(&format!("/api/v1/incidents/{id}"))
                    .await
                    .unwrap(),
            );
            fastest = fastest.min(begun.elapsed());
        }
        times.push(fastest);
        // The command reads the journal once, and not once for each page.
        assert!(
            command < fastest * 6 + Duration::from_millis(1500),
            "{command:?} {fastest:?}"
        );
    }
    println!("{sizes:?} bytes, a page in {times:?}");
    assert!(sizes[0] > 1 << 20 && sizes[1] > sizes[0] * 3, "{sizes:?}");
    // Four times as much, and what else the machine has to do.
    assert!(
        times[1] < times[0] * 8 + Duration::from_millis(200),
        "{times:?}"
    );

    // However many ask at once, no more is held than a page each.
    let before = memory(&daemon, "VmRSS:");
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let url = daemon.url("/api/v1/incidents/2");
        asking.spawn(async move {
            let answer = sentinel_tests::daemon::client()
                .get(url)
                .send()
                .await
                .unwrap();
            answer.bytes().await.unwrap().len()
        });
    }
    while let Some(length) = asking.join_next().await {
        assert!(length.unwrap() < PAGE);
    }
    let more = memory(&daemon, "VmHWM:").saturating_sub(before);
    println!("forty that ask at once take {} MiB", more >> 20);
    assert!(more < 200 << 20, "{more}");
}
