//! Files that JavaScript holds and this side reads at any place.

use std::cell::RefCell;
use std::io;
use std::ops::Range;

use wasm_bindgen::prelude::*;
use wgforge_model::checkpoint::ReadAt;

#[wasm_bindgen]
extern "C" {
    /// A file as `web/js/files.js` describes it: in private storage, dropped on the page, or
    /// behind a URL.
    pub type JsFile;

    /// What messages call it.
    #[wasm_bindgen(method, getter)]
    pub(crate) fn name(this: &JsFile) -> String;

    /// Bytes.
    #[wasm_bindgen(method, getter)]
    fn size(this: &JsFile) -> f64;

    /// Whether those bytes were fetched.
    #[wasm_bindgen(method)]
    fn has(this: &JsFile, start: f64, end: f64) -> bool;

    /// Fills `into` with the bytes from `offset` on, at once: workers can.
    #[wasm_bindgen(method, catch)]
    fn read(this: &JsFile, offset: f64, into: &mut [u8]) -> Result<(), JsValue>;
}

thread_local! {
    /// Values of JavaScript belong to one thread, and files of a checkpoint may be on any: the
    /// reader below holds a number instead. There is one thread here.
    static FILES: RefCell<Vec<Option<JsFile>>> = const { RefCell::new(Vec::new()) };
}

/// One of the files, by its number.
pub(crate) struct Reader {
    number: usize,
    size: u64,
}

impl Reader {
    pub(crate) fn new(file: JsFile) -> Self {
        let size = whole(file.size());
        let number = FILES.with_borrow_mut(|files| {
            files.push(Some(file));
            files.len() - 1
        });
        Self { number, size }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        FILES.with_borrow_mut(|files| files[self.number] = None);
    }
}

impl ReadAt for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        FILES.with_borrow(|files| match &files[self.number] {
            Some(file) => file.read(offset as f64, into).map_err(|e| io::Error::other(text(&e))),
            None => Err(io::Error::other("it was closed")),
        })
    }

    fn has(&self, range: Range<u64>) -> bool {
        FILES.with_borrow(|files| {
            files[self.number].as_ref().is_some_and(|file| file.has(range.start as f64, range.end as f64))
        })
    }
}

/// The message of whatever was thrown.
pub(crate) fn text(value: &JsValue) -> String {
    match value.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => value.as_string().unwrap_or_else(|| format!("{value:?}")),
    }
}

/// A size from JavaScript; 0 for what cannot be one.
fn whole(size: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sizes of files are whole numbers below 2^53; others become 0 or stop at the ends"
    )]
    let size = size as u64;
    size
}
