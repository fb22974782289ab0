//! The built program, from outside: exit codes, messages, files and JSON.

mod program;

use std::fs;
use std::process::{Command, Stdio};

use program::{backends, path, synth, tensor, tokens, wgforge};

#[test]
fn bad_usage_exits_with_2_and_says_what_is_wrong() {
    wgforge(&["frob"]).fails(2, &["unrecognized subcommand"]);
    wgforge(&["run", "--frob"]).fails(2, &["--frob"]);
    wgforge(&["--backend", "glide"]).fails(2, &["possible values", "reference"]);
    wgforge(&["run", "x", "--max-new", "0"]).fails(2, &["--max-new"]);
    wgforge(&["run", "x", "--max-new", "5000000000"]).fails(2, &["--max-new"]);
    wgforge(&["run", "x", "--temperature", "NaN"]).fails(2, &["temperature"]);
    wgforge(&["run", "x", "--temperature=-1"]).fails(2, &["temperature"]);
    wgforge(&["run", "x", "--top-p", "0"]).fails(2, &["probability"]);
    wgforge(&["run", "x", "--top-k", "4000"]).fails(2, &["--top-k"]);
    wgforge(&["run", "x", "--tokens", "2"]).fails(2, &["cannot be used with"]);
    wgforge(&["run", "--tokens", " "]).fails(2, &["not a single token id"]);
    wgforge(&["logits", "--tokens", "2"]).fails(2, &["--out"]);
    wgforge(&["kernels", "show", "frob"]).fails(2, &["unknown kernel", "gemv"]);
    wgforge(&["kernels", "show", "gemv", "--shape", "{"]).fails(2, &["not JSON"]);
    wgforge(&["kernels", "show", "gemv", "--shape", "{}"]).fails(2, &["missing field", "an example is"]);
    wgforge(&["kernels", "show", "gemv", "--config", r#"{"frob":1}"#]).fails(2, &["frob"]);
    wgforge(&["kernels", "show", "gemv", "--class", "subgroup3"]).fails(2, &["subgroup3"]);
    wgforge(&["synth", "--shape", "tiny", "--format", "zip", "--out", "x"]).fails(2, &["zip"]);
    wgforge(&["bench", "--tokens", "0"]).fails(2, &["--tokens"]);
    wgforge(&["autotune", "--kernel", "frob"]).fails(2, &["frob"]);
    wgforge(&["autotune", "--quick", "--full"]).fails(2, &["cannot be used with"]);
    wgforge(&["autotune", "--budget", "0"]).fails(2, &["--budget"]);
    wgforge(&["autotune", "--backend", "reference"]).fails(1, &["without a GPU adapter"]);
}

#[test]
fn what_is_not_there_yet_says_so() {
    wgforge(&["run", "x", "--model", "owner/name"]).fails(1, &["not supported yet", "folder"]);
    wgforge(&["run", "x", "--model", "weights.gguf"]).fails(1, &["not supported yet", "folder"]);
    let dir = tempfile::tempdir().expect("a folder");
    let out = path(dir.path());
    wgforge(&["synth", "--shape", "tiny", "--format", "q4_0", "--out", out]).fails(1, &["not supported"]);
}

#[test]
fn help_and_version_are_no_errors() {
    assert!(wgforge(&["--help"]).ok().contains("autotune"), "subcommands are listed");
    assert!(wgforge(&["--version"]).ok().starts_with("wgforge "), "name and version");
}

#[test]
fn damaged_checkpoints_are_errors_that_name_the_file() {
    wgforge(&["run", "--tokens", "2", "--model", "/nowhere/at/all"]).fails(1, &["/nowhere/at/all"]);
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let run = || wgforge(&["run", "--backend", "reference", "--tokens", "2", "--model", path(dir)]);
    run().fails(1, &["config.json"]);

    synth(dir, "mobile");
    let (weights, config) = (dir.join("model.safetensors"), dir.join("config.json"));
    let (whole, json) = (fs::read(&weights).expect("weights"), fs::read_to_string(&config).expect("config"));

    fs::write(&weights, &whole[..whole.len() / 2]).expect("written");
    run().fails(1, &["model.safetensors", "damaged"]);
    fs::write(&weights, &whole[..5]).expect("written");
    run().fails(1, &["model.safetensors"]);
    let mut lying = whole.clone();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&weights, &lying).expect("written");
    run().fails(1, &["model.safetensors"]);

    fs::write(&weights, &whole).expect("written");
    fs::write(&config, json.replace("\"hidden_size\"", "\"hidden_sise\"")).expect("written");
    run().fails(1, &["config.json", "hidden_size"]);
    fs::write(&config, json.replace("\"quant_method\": \"gemma\"", "\"quant_method\": \"magic\""))
        .expect("written");
    run().fails(1, &["magic"]);
    fs::write(&config, "[1, 2").expect("written");
    run().fails(1, &["config.json"]);
}

#[test]
fn contexts_vocabularies_and_devices_have_bounds() {
    let run = |arguments: &[&str]| wgforge(&[&["run", "--backend", "reference"], arguments].concat());
    run(&["x", "--max-new", "99999"]).fails(1, &["100000 tokens", "context of 4096"]);
    run(&["x", "--max-new", "4294967295"]).fails(1, &["context of 4096"]);
    run(&["--tokens", "2048"]).fails(2, &["2048", "vocabulary"]);
    wgforge(&["--adapter", "no such thing"]).fails(1, &["no such thing"]);
    wgforge(&["bench", "--depth", "5000"]).fails(2, &["4096"]);
}

#[test]
fn kernels_are_listed_and_shown() {
    let list = wgforge(&["kernels", "list", "--json"]).json();
    let names: Vec<&str> =
        list.as_array().expect("a list").iter().filter_map(|k| k["kernel"].as_str()).collect();
    assert!(names.contains(&"gemv") && names.contains(&"attention"), "{names:?}");
    let text = wgforge(&["kernels", "list"]).ok();
    for name in names {
        assert!(text.contains(name), "{name} is in both lists");
        for (class, target) in [("plain", "native"), ("subgroup32-f16", "web")] {
            let shown = wgforge(&["kernels", "show", name, "--class", class, "--target", target]).ok();
            assert!(shown.contains("@compute") && shown.contains("// workgroup"), "{name}: {shown}");
        }
    }
    let web = ["kernels", "show", "gemv", "--class", "subgroup32", "--json", "--target"];
    let wgsl = |target| wgforge(&[&web[..], &[target]].concat()).json()["wgsl"].to_string();
    assert!(wgsl("web").contains("enable subgroups"), "browsers ask for it");
    assert!(!wgsl("native").contains("enable subgroups"), "naga refuses it");
}

#[test]
fn doctor_reports_in_json_and_text() {
    let report = wgforge(&["doctor", "--json"]).json();
    for adapter in report["adapters"].as_array().expect("a list") {
        let name = &adapter["name"];
        assert!(adapter["caps"]["max_binding_bytes"].as_u64().is_some_and(|b| b > 0), "{name}: limits");
        // GL drivers may refuse kernels; nobody else may compute wrongly.
        let right = adapter["computes_right"] == true;
        assert!(right || adapter["backend"] == "gl", "{name}: {}", adapter["error"]);
    }
    assert!(wgforge(&["doctor"]).ok().contains("chosen"), "text");
}

#[test]
fn logits_and_traces_of_a_random_checkpoint() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, out) = (dir.path().join("model"), dir.path().join("out.safetensors"));
    synth(&model, "bf16");
    let ids = "2,105,7,300,4,9";
    for backend in backends() {
        let base = [&["--model", path(&model), "--activations", "f32", "--kv", "f32"], &backend[..]].concat();
        let run = |rest: &[&str]| {
            wgforge(&[&base[..], rest, &["--tokens", ids, "--out", path(&out), "--json"]].concat()).json()
        };
        assert_eq!(run(&["logits"])["finite"], true, "{backend:?}");
        let (shape, whole) = tensor(&out, "logits");
        assert_eq!(shape, [6, 768], "tokens and vocabulary");
        run(&["logits", "--decode"]);
        let (_, one_by_one) = tensor(&out, "logits");
        let worst = whole.iter().zip(&one_by_one).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "{backend:?}: prefill and decode differ by {worst}");

        let loss = &run(&["logits", "--weights", "int8"])["against_stored"];
        let kl = loss["kl_mean"].as_f64().expect("a number");
        assert!(kl > 0.0 && kl < 0.1, "{backend:?}: int8 weights lose something, and little: {kl}");

        run(&["trace"]);
        let (shape, _) = tensor(&out, "hidden");
        assert_eq!(shape, [11, 6, 256], "layers, tokens, width");
        let again = dir.path().join("again.safetensors");
        fs::rename(&out, &again).expect("renamed");
        let injected = run(&["trace", "--inject", path(&again)]);
        assert!(injected["worst_rms_ratio"].as_f64().is_some_and(|r| r < 1e-5), "{backend:?}: {injected}");
    }
    let left: Vec<_> = fs::read_dir(dir.path()).expect("a folder").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 3, "no temporary files stay: {left:?}");
    // Shapes that do not fit.
    let fails =
        ["trace", "--backend", "reference", "--model", path(&model), "--tokens", "2", "--out", path(&out)];
    let again = dir.path().join("again.safetensors");
    wgforge(&[&fails[..], &["--inject", path(&again)]].concat()).fails(1, &["wanted [11, 1, 256]"]);
}

#[test]
fn greedy_text_is_the_same_everywhere_and_seeds_repeat() {
    let exact = ["--activations", "f32", "--kv", "f32", "--json"];
    let base = [&["run", "ROMEO:", "--max-new", "24"], &exact[..]].concat();
    let mut greedy = Vec::new();
    for backend in backends() {
        let run = |rest: &[&str]| wgforge(&[&base[..], &backend, rest].concat()).json();
        let result = run(&["--temperature", "0"]);
        assert!(result["seed"].is_null(), "chance has no part in it");
        greedy.push(tokens(&result));
        let drawn = ["--seed", "5", "--temperature", "1"].as_slice();
        assert_eq!(tokens(&run(drawn)), tokens(&run(drawn)), "{backend:?}: same seed, same tokens");
        let other = run(&["--seed", "6", "--temperature", "1"]);
        assert_ne!(tokens(&run(drawn)), tokens(&other), "{backend:?}: another seed, other tokens");
    }
    assert!(greedy.iter().all(|g| *g == greedy[0] && g.len() == 24), "{greedy:?}");
}

#[test]
fn alone_it_writes_a_text_and_names_the_next_steps() {
    for backend in backends() {
        let ran = wgforge(&backend);
        assert!(ran.err.contains("wgforge doctor"), "{}", ran.err);
        let text = ran.ok();
        assert!(text.starts_with("ROMEO:") && text.split_whitespace().count() > 40, "{text}");
    }
}

#[test]
fn bench_reports_every_figure() {
    for backend in backends() {
        let arguments = ["bench", "--json", "--prompt", "20", "--tokens", "4", "--depth", "3", "--runs", "2"];
        let result = wgforge(&[&arguments[..], &backend].concat()).json();
        for field in [
            "adapter",
            "backend",
            "kernels",
            "model",
            "format",
            "context",
            "prefill_tokens",
            "prefill_tok_s",
            "first_token_ms",
            "decode_tokens",
            "decode_tok_s",
            "dispatches_per_token",
            "weight_bytes_per_token",
            "achieved_gb_s",
            "memory_bytes",
            "load_s",
            "runs",
        ] {
            assert!(!result[field].is_null(), "{field} in {result}");
        }
        assert_eq!(result["logits_finite"], true, "{result}");
        assert_eq!(result["context"], 23, "depth and prompt");
        let gpu = result["backend"] != "reference";
        assert_eq!(result["bandwidth_fraction"].is_number(), gpu, "{result}");
        // Where there are time stamps.
        let busy = &result["gpu_busy"];
        assert!(busy.as_f64().map_or(busy.is_null(), |b| gpu && b > 0.05 && b < 1.2), "{result}");
        assert_eq!(result["read_bandwidth_gb_s"].as_f64().is_some_and(|b| b > 0.1), gpu, "{result}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wgforge"))
        .args(["run", "x", "--backend", "reference", "--max-new", "40"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !err.contains("panicked"), "{err}");
}
