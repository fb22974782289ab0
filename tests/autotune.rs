//! `wgforge autotune` from outside, on the built-in model and the adapter at hand.

#[expect(dead_code, reason = "each test file uses its part")]
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use program::{backends, path};
use serde_json::Value;

/// A call with a cache folder of its own.
fn command(cache: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgforge"));
    command.args(arguments).env("XDG_CACHE_HOME", cache).env("HOME", cache).env("LOCALAPPDATA", cache);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Whether there is an adapter; says so where there is none.
fn adapter() -> bool {
    let found = backends().len() > 1;
    if !found {
        println!("skipped: there is no adapter");
    }
    found
}

/// The files below a folder with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_quick_run_of_one_kernel_saves_shows_and_is_used() {
    if !adapter() {
        return;
    }
    let cache = tempfile::tempdir().expect("a folder");
    let cache = cache.path();
    let (out, page) = (cache.join("out.toml"), cache.join("report.html"));
    let base = ["autotune", "--kernel", "argmax", "--quick", "--json", "--seed", "5"];
    let extra = ["--out", path(&out), "--report", path(&page), "--budget", "150"];
    let result = ok(&command(cache, &[&base[..], &extra].concat()).output().expect("it ran"));
    let result: Value = serde_json::from_str(&result).expect("JSON");
    let tuned = result["tuned"].as_array().expect("a list");
    assert!(tuned.len() >= 2, "both stages: {result}");
    for one in tuned {
        assert_eq!(one["kernel"], "argmax", "{one}");
        assert!(one["after_us"].as_f64().is_some_and(|us| us > 0.0), "{one}");
        assert!(one["candidates"].as_u64().is_some_and(|n| n >= 1), "{one}");
        assert_eq!(one["refused"], 0, "{one}");
    }
    assert!(result["roofline"]["read_gb_s"].as_f64().is_some_and(|r| r > 0.1), "{result}");
    assert_eq!(result["alarms"], serde_json::json!([]), "generic kernels work");

    let database = fs::read_to_string(&out).expect("--out");
    assert!(database.contains("kernel = \"argmax\"") && database.contains("low_us ="), "{database}");
    let html = fs::read_to_string(&page).expect("--report");
    assert!(html.contains("<svg") && html.contains("roofline"), "a page with plots");
    let saved = files(cache, ".toml").into_iter().filter(|p| *p != out).collect::<Vec<_>>();
    assert_eq!(saved.len(), 1, "one database in the cache: {saved:?}");
    let evidence = fs::read_to_string(&files(cache, ".evidence.jsonl")[0]).expect("evidence");
    assert!(evidence.lines().count() > tuned.len() * 2, "a line each candidate:\n{evidence}");
    assert!(evidence.ends_with("{\"line\":\"end\"}\n"), "it came to its end");

    // The next program uses it and says so.
    let doctor: Value =
        serde_json::from_str(&ok(&command(cache, &["doctor", "--json"]).output().expect("it ran")))
            .expect("JSON");
    let all = doctor["adapters"].as_array().expect("a list");
    let uses = |a: &Value| a["kernels"].as_str().is_some_and(|why| why.contains("tuned on this"));
    assert!(all.iter().any(uses), "{doctor:#}");

    // Made elsewhere, it is refused with the reason, or used with a notice.
    let mine = fs::read_to_string(&saved[0]).expect("reads");
    let vendor = mine.lines().find(|l| l.starts_with("vendor = ")).expect("a vendor");
    fs::write(&saved[0], mine.replacen(vendor, "vendor = 77", 1)).expect("written");
    let doctor = ok(&command(cache, &["doctor"]).output().expect("it ran"));
    assert!(
        doctor.contains("is not used: it was made on") && doctor.contains("wgforge autotune"),
        "{doctor}"
    );
    fs::write(&saved[0], mine.replacen("wgpu = \"", "wgpu = \"0.", 1)).expect("written");
    let doctor = ok(&command(cache, &["doctor"]).output().expect("it ran"));
    assert!(doctor.contains("was made with wgpu 0.") && doctor.contains("all the same"), "{doctor}");

    // A file that nobody can read is no reason to say nothing.
    fs::write(&saved[0], "schema = [").expect("written");
    let run = command(cache, &["run", "--max-new", "1", "ROMEO:"]).output().expect("it ran");
    ok(&run);
    let err = text(&run.stderr);
    assert!(err.contains(&format!("notice: {}", saved[0].display())), "{err}");
}

/// Workloads that lie settled in the evidence.
fn settled(cache: &Path) -> usize {
    let text = files(cache, ".evidence.jsonl").first().and_then(|p| fs::read_to_string(p).ok());
    text.unwrap_or_default()
        .split_inclusive('\n')
        .filter(|l| l.contains("{\"line\":\"settled\"") && l.ends_with('\n'))
        .count()
}

/// A run that takes its time, once it has settled something.
#[cfg(unix)]
fn under_way(cache: &Path) -> Child {
    let earlier = settled(cache);
    let arguments = ["autotune", "--kernel", "norm", "--kernel", "gemv", "--full", "--no-confirm"];
    let mut child = command(cache, &arguments).spawn().expect("it starts");
    let start = Instant::now();
    while settled(cache) <= earlier {
        if start.elapsed() > Duration::from_secs(120) {
            child.kill().expect("killed");
            let output = child.wait_with_output().expect("gone");
            panic!("nothing was settled in two minutes: {}", text(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child
}

#[cfg(unix)]
#[test]
fn a_killed_run_is_resumed_and_ctrl_c_keeps_what_is_settled() {
    if !adapter() {
        return;
    }
    let cache = tempfile::tempdir().expect("a folder");
    let cache = cache.path();
    let mut child = under_way(cache);
    // While it runs, another one is told so.
    let second = command(cache, &["autotune"]).output().expect("it ran");
    assert_eq!(second.status.code(), Some(1), "{}", text(&second.stderr));
    assert!(text(&second.stderr).contains("being tuned by another program"), "{}", text(&second.stderr));
    child.kill().expect("killed");
    child.wait().expect("gone");
    assert!(files(cache, ".toml").is_empty(), "a killed run leaves no database");

    let child = under_way(cache);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success(), "signalled");
    let output = child.wait_with_output().expect("it ends");
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("settled by a run that did not finish"), "resumed: {err}");
    assert!(err.contains("stopped;") && err.contains("saved"), "{err}");
    assert!(text(&output.stdout).contains("speed-up"), "the table: {}", text(&output.stdout));
    let saved = files(cache, ".toml");
    assert_eq!(saved.len(), 1, "{saved:?}");
    assert!(fs::read_to_string(&saved[0]).expect("reads").contains("median_us"), "with its times");
}
