//! A tuning session as one HTML file that needs nothing else: a table of what changed, and for
//! each workload the times of its candidates as a strip plot in SVG.

use std::fmt::Write as _;

use crate::{
    confirm::Confirmed,
    evidence::{Measured, Record, Settled},
    stats::median,
};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 104.0;
const LEFT: f64 = 12.0;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:920px;padding:0 1rem;\
color:#1c2430;background:#fff}h1{font-size:1.4rem}h2{font-size:1.05rem;margin:2rem 0 .2rem}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}td,th{padding:.25rem .5rem;\
border-bottom:1px solid #dde3ea;text-align:right}td:first-child,th:first-child{text-align:left}\
code{font-size:.82em;overflow-wrap:anywhere}svg{width:100%;height:auto}.dim{color:#66707c}\
details{margin:.3rem 0}@media(prefers-color-scheme:dark){body{background:#14181d;color:#dfe5ec}\
td,th{border-color:#313943}.dim{color:#98a2ae}}";

/// Text for HTML, attributes included.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The whole page. `about`: names and values that say what was tuned, where and how. `confirmed`:
/// whole-program measurements with what they measured.
pub fn html(
    about: &[(String, String)],
    settled: &[Settled],
    left: &[(String, String)],
    confirmed: &[(String, Confirmed)],
) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = page(&mut out, about, settled, left, confirmed);
    out
}

fn page(
    out: &mut String,
    about: &[(String, String)],
    settled: &[Settled],
    left: &[(String, String)],
    confirmed: &[(String, Confirmed)],
) -> std::fmt::Result {
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>wgforge autotune</title>\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><style>{STYLE}</style>\n\
         <h1>wgforge autotune</h1>\n<table>\n"
    )?;
    for (name, value) in about {
        writeln!(out, "<tr><td>{}</td><td>{}</td></tr>", escape(name), escape(value))?;
    }
    out.push_str("</table>\n");
    for (what, c) in confirmed {
        writeln!(
            out,
            "<h2>{}: {:.1} before, {:.1} after</h2>\n<table><tr><th>group</th><th>slower without it</th>\
             <th>interval</th><th>kept</th></tr>",
            escape(what),
            c.before,
            c.after
        )?;
        for s in &c.shares {
            writeln!(
                out,
                "<tr><td>{}</td><td>{:+.1} %</td><td>{:+.1} to {:+.1} %</td><td>{}</td></tr>",
                escape(&s.name),
                s.slower_without * 100.0,
                s.interval.0 * 100.0,
                s.interval.1 * 100.0,
                if s.kept { "yes" } else { "no" }
            )?;
        }
        out.push_str("</table>\n");
    }
    out.push_str(
        "<h2>Kernels</h2>\n<table><tr><th>workload</th><th>before µs</th><th>after µs</th><th>interval</th>\
         <th>speed-up</th><th>GB/s</th><th>of roofline</th></tr>\n",
    );
    for (i, s) in settled.iter().enumerate() {
        writeln!(
            out,
            "<tr><td><a href=\"#w{i}\">{}</a> <code>{}</code></td><td>{}</td><td>{:.2}</td>\
             <td>{:.2}–{:.2}</td><td>{:.2}×</td><td>{:.1}</td><td>{:.0} %</td></tr>",
            escape(s.workload.kernel()),
            escape(&s.workload.shape_json()),
            s.before.as_ref().map_or("–".into(), |b| format!("{:.2}", b.us.median)),
            s.winner.us.median,
            s.winner.us.low,
            s.winner.us.high,
            s.speedup(),
            s.gb_s(),
            s.fraction() * 100.0
        )?;
    }
    out.push_str("</table>\n");
    for (what, why) in left {
        writeln!(out, "<p class=\"dim\">{} stays as it was: {}</p>", escape(what), escape(why))?;
    }
    for (i, s) in settled.iter().enumerate() {
        workload(out, i, s)?;
    }
    out.push_str("</html>\n");
    Ok(())
}

fn workload(out: &mut String, i: usize, s: &Settled) -> std::fmt::Result {
    let proven = s.records.iter().filter(|r| r.reason.is_none()).count();
    writeln!(
        out,
        "<h2 id=\"w{i}\">{}</h2>\n<div><code>{}</code></div>\n<div class=\"dim\">{proven} candidates proven, {} \
         refused; {}; {} tokens at {}</div>",
        escape(s.workload.kernel()),
        escape(&s.workload.shape_json()),
        s.records.len() - proven,
        escape(&s.ended),
        s.tokens,
        s.position
    )?;
    strip(out, s)?;
    writeln!(out, "<div>winner <code>{}</code></div>", escape(&s.winner.config.to_string()))?;
    if let (Some(us), Some(generic)) = (s.winner.independent_us, &s.generic) {
        writeln!(
            out,
            "<div class=\"dim\">overlapping: {:.1} GB/s, generic {}</div>",
            s.bytes as f64 / us / 1e3,
            generic
                .independent_us
                .map_or("not measured".into(), |g| format!("{:.1} GB/s", s.bytes as f64 / g / 1e3))
        )?;
    }
    let refused: Vec<&Record> = s.records.iter().filter(|r| r.reason.is_some()).collect();
    if !refused.is_empty() {
        writeln!(out, "<details><summary>{} refused</summary>", refused.len())?;
        for r in refused {
            let reason = r.reason.as_deref().unwrap_or_default();
            writeln!(out, "<div><code>{}</code> {}</div>", escape(&r.config.to_string()), escape(reason))?;
        }
        out.push_str("</details>\n");
    }
    Ok(())
}

/// A dot for each candidate at its median, on a logarithmic axis from the roofline on.
fn strip(out: &mut String, s: &Settled) -> std::fmt::Result {
    let medians: Vec<(&Record, f64)> = s
        .records
        .iter()
        .filter_map(|r| median(&r.samples).map(|m| (r, m)))
        .filter(|(_, m)| *m > 0.0)
        .collect();
    let marked = [Some(&s.winner), s.before.as_ref(), s.generic.as_ref()];
    let times = medians.iter().map(|(_, m)| *m).chain(marked.iter().flatten().map(|m| m.us.median));
    let (low, high) = times
        .chain([s.bound_us])
        .filter(|t| *t > 0.0)
        .fold((f64::INFINITY, 0.0f64), |(a, b), t| (a.min(t), b.max(t)));
    let (low, high) = (low * 0.93, high * 1.07);
    if !(low.is_finite() && high > low) {
        return Ok(());
    }
    let x = |us: f64| LEFT + (us / low).ln() / (high / low).ln() * (WIDTH - 2.0 * LEFT);
    write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"times of the candidates\" \
         font-size=\"11\" font-family=\"system-ui,sans-serif\" fill=\"currentColor\">"
    )?;
    write!(out, "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"62\" y2=\"62\" stroke=\"#98a2ae\"/>", WIDTH - LEFT)?;
    for (i, (record, us)) in medians.iter().enumerate() {
        // Dots of equal times side by side: their height means nothing.
        let y = 30.0 + (i * 7 % 5) as f64 * 5.5;
        write!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#4a7fb5\" fill-opacity=\"0.55\"><title>{} {us:.2} µs\
             </title></circle>",
            x(*us),
            escape(&record.config.to_string())
        )?;
    }
    let mut mark = |us: f64, name: &str, color: &str, y: f64, dash: &str| {
        let anchor = if x(us) > WIDTH * 0.8 { "end" } else { "start" };
        let dx = if anchor == "end" { -4.0 } else { 4.0 };
        write!(
            out,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"18\" y2=\"66\" stroke=\"{color}\" stroke-width=\"1.5\"{dash}/>\
             <text x=\"{1:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{name} {us:.2} µs</text>",
            x(us),
            x(us) + dx
        )
    };
    mark(s.bound_us, "roofline", "#b5473a", 12.0, " stroke-dasharray=\"4 3\"")?;
    if let Some(g) = &s.generic {
        mark(g.us.median, "generic", "#98a2ae", 88.0, "")?;
    }
    // One line for each configuration.
    let other = |b: &&Measured| {
        b.config != s.winner.config && s.generic.as_ref().is_none_or(|g| g.config != b.config)
    };
    if let Some(b) = s.before.as_ref().filter(other) {
        mark(b.us.median, "before", "#b08a2e", 100.0, "")?;
    }
    mark(s.winner.us.median, "winner", "#2f8f57", 76.0, "")?;
    out.push_str("</svg>\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::summary;
    use wgforge_codegen::{Caps, Workload, shapes};

    fn example() -> Settled {
        let workload: Workload = shapes::odd().remove(0);
        let config: serde_json::Value =
            serde_json::from_str(&workload.generic(&Caps::webgpu_baseline()).config_json()).expect("JSON");
        let measured = |us: f64| Measured {
            config: config.clone(),
            wgsl_hash: "0".repeat(64),
            us: summary(&[us, us * 1.01, us * 0.99]).expect("samples"),
            independent_us: Some(us / 2.0),
        };
        let record = |outcome: &str, reason: Option<&str>, samples: Vec<f64>| Record {
            config: config.clone(),
            wgsl_hash: None,
            outcome: outcome.into(),
            reason: reason.map(Into::into),
            samples,
        };
        Settled {
            workload,
            tokens: 1,
            position: 0,
            bytes: 1000,
            ops: 0,
            bound_us: 1.0,
            before: Some(Measured { config: "another".into(), ..measured(3.0) }),
            generic: Some(measured(4.0)),
            winner: measured(2.0),
            runner_up: None,
            ended: "all candidates tried".into(),
            records: vec![
                record("proven", None, vec![2.0, 2.1]),
                record("wrong", Some("<b>\"element\" 3 & 4</b>"), Vec::new()),
            ],
        }
    }

    #[test]
    fn everything_is_in_the_page_and_escaped() {
        let about = [("adapter".to_owned(), "A <card> & \"more\"".to_owned())];
        let left = [("norm <x>".to_owned(), "the time was spent".to_owned())];
        let page = html(&about, &[example()], &left, &[]);
        for wanted in [
            "A &lt;card&gt; &amp; &quot;more&quot;",
            "&lt;b&gt;&quot;element&quot; 3 &amp; 4&lt;/b&gt;",
            "norm &lt;x&gt;",
            "roofline 1.00 µs",
            "winner 2.00 µs",
            "generic 4.00 µs",
            "before 3.00 µs",
            "1.98–2.02",
            "1.50×",
        ] {
            assert!(page.contains(wanted), "no {wanted:?} in\n{page}");
        }
        assert!(!page.contains("<b>") && !page.contains("<card>"), "nothing is taken for markup");
        assert!(!page.contains("http"), "it needs nothing else");
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count(), "SVG is closed");
    }
}
