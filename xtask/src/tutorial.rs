//! The page on kernels of one's own, done by the letter: its files written, its commands run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};

/// Dependencies are built as the workspace builds them, so that both can share a target folder.
const CONFIG: &str =
    "[profile.dev.package.\"*\"]\nopt-level = 2\n[profile.dev.build-override]\nopt-level = 2\n";

/// A block of the page: its kind, the file it is to become, its text.
type Fence<'a> = (&'a str, Option<&'a str>, Vec<&'a str>);

fn fences(page: &str) -> Result<Vec<Fence<'_>>> {
    let mut all = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let (kind, file) = info.split_once(' ').map_or((info, None), |(kind, file)| (kind, Some(file)));
        let mut text = Vec::new();
        loop {
            match lines.next() {
                Some("```") => break,
                Some(line) => text.push(line),
                None => bail!("a block of {info} has no end"),
            }
        }
        all.push((kind, file, text));
    }
    Ok(all)
}

/// All that the page says to do, as one script, because its first command changes the folder.
fn script(page: &str, root: &str) -> Result<String> {
    let page = page.replace("../../wgforge", root).replace("../wgforge", root);
    let mut script = String::from("set -x\n");
    for (kind, file, lines) in fences(&page)? {
        match (kind, file) {
            ("sh", None) => {
                for line in lines {
                    ensure!(!line.ends_with('\\'), "a command over several lines: {line}");
                    writeln!(script, "{line} || exit 1")?;
                }
            }
            (_, Some(file)) => {
                writeln!(script, "cat > {file} <<'END OF FILE' || exit 1")?;
                writeln!(script, "{}\nEND OF FILE", lines.join("\n"))?;
            }
            _ => bail!("a block of {kind} has no file to become"),
        }
    }
    Ok(script)
}

/// Does what the page says in a temporary folder, with this repository in the place of `../wgforge`.
///
/// # Errors
/// A page that cannot be followed, or its first command that fails.
pub(crate) fn run(root: &Path) -> Result<()> {
    let root = root.canonicalize()?;
    let page = fs::read_to_string(root.join("docs/tune-your-own.md"))?;
    let script = script(&page, &root.to_string_lossy())?;
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join(".cargo"))?;
    fs::write(folder.path().join(".cargo/config.toml"), CONFIG)?;
    let status = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", root.join("target"))
        // The commit needs some author, and must not be this repository's.
        .envs(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name, "reader")))
        .envs(["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name, "reader@localhost")))
        .status()?;
    ensure!(status.success(), "the page cannot be followed: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::script;

    #[test]
    fn files_are_written_and_commands_end_the_script_where_they_fail() {
        let page =
            "Text.\n```sh\nmkdir a && cd a\n```\n```toml Cargo.toml\npath = \"../../wgforge/x\"\n```\n";
        let wanted = "set -x\nmkdir a && cd a || exit 1\ncat > Cargo.toml <<'END OF FILE' || exit 1\n\
                      path = \"/repo/x\"\nEND OF FILE\n";
        assert_eq!(script(page, "/repo").expect("a page"), wanted);
        assert!(script("```sh\ntrue", "/repo").is_err(), "a block without end");
        assert!(script("```rust\nfn main() {}\n```\n", "/repo").is_err(), "a block without place");
    }
}
