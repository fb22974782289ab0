//! Buffers, arenas and uploads, on wgpu's stub backend, which really copies.

mod common;

use common::noop;
use pollster::block_on;
use wgforge_runtime::{Arena, Error, Uploader, wgpu::BufferUsages};

const WEIGHTS: BufferUsages =
    BufferUsages::STORAGE.union(BufferUsages::COPY_DST).union(BufferUsages::COPY_SRC);

#[test]
fn what_is_written_is_read_back() {
    let device = noop();
    let slice = block_on(device.buffer("test", 16)).expect("a small buffer");
    device.write(&slice, 0, &[1, 2, 3, 4]);
    device.write(&slice, 8, &[5, 6, 7, 8, 9]);
    let bytes = block_on(device.read(&slice)).expect("read-back");
    assert_eq!(bytes, [1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, 9, 0, 0, 0], "the last word is filled up");
    let part = block_on(device.read(&slice.part(8, 4).expect("a word"))).expect("read-back");
    assert_eq!(part, [5, 6, 7, 8], "a part is read alone");
}

#[test]
fn a_write_beyond_its_slice_changes_nothing_and_shows_at_the_next_check() {
    let device = noop();
    let whole = block_on(device.buffer("test", 16)).expect("a small buffer");
    let part = whole.part(0, 8).expect("half");
    device.write(&part, 4, &[1; 8]);
    assert!(matches!(device.check(), Err(Error::Validation { .. })), "the write is refused");
    device.write(&part, 2, &[1; 4]);
    assert!(matches!(device.check(), Err(Error::Validation { .. })), "an odd offset too");
    assert_eq!(block_on(device.read(&whole)).expect("read-back"), [0; 16], "nothing was written");
}

#[test]
fn sizes_are_rounded_up_to_words() {
    let device = noop();
    let size = |bytes| block_on(device.buffer("test", bytes)).expect("a small buffer").size;
    assert_eq!([size(0), size(1), size(4), size(5)], [4, 4, 4, 8], "whole words, at least one");
    assert_eq!(block_on(device.uniform("test", 20)).expect("a small buffer").size, 32, "uniforms: 16");
}

#[test]
fn memory_is_counted_while_anybody_holds_it() {
    let device = noop();
    let slice = block_on(device.buffer("test", 100)).expect("a small buffer");
    let part = slice.part(0, 4).expect("a word");
    drop(slice);
    assert_eq!(device.memory_in_use(), 100, "a part holds the whole buffer");
    drop(part);
    assert_eq!(device.memory_in_use(), 0, "all is given back");
    let mut arena = Arena::new(&device, "arena", 1024, WEIGHTS);
    let slice = arena.alloc(8).expect("room");
    assert_eq!(device.memory_in_use(), 1024, "blocks count whole");
    drop(arena);
    assert_eq!(device.memory_in_use(), 1024, "a slice holds its block");
    drop(slice);
    assert_eq!(device.memory_in_use(), 0, "all is given back");
}

#[test]
fn running_out_of_memory_is_an_error_and_not_the_end() {
    let device = noop();
    let bytes = 1 << 59;
    let error = block_on(device.buffer("absurd", bytes)).expect_err("half an exabyte");
    assert!(matches!(error, Error::OutOfMemory { bytes: b, .. } if b == bytes), "{error}");
    assert!(error.to_string().contains("absurd"), "the buffer is named: {error}");
    let error = Arena::new(&device, "arena", bytes, WEIGHTS).alloc(4).expect_err("a block of that");
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    assert_eq!(device.memory_in_use(), 0, "nothing is counted");
    assert!(block_on(device.buffer("small", 4)).is_ok(), "the device lives on");
    assert!(device.check().is_ok(), "and has nothing more to report");
}

#[test]
fn what_exceeds_the_largest_buffer_is_too_large() {
    let device = noop();
    let limit = device.caps().max_buffer_bytes;
    for bytes in [limit + 1, u64::MAX] {
        let error = block_on(device.buffer("huge", bytes)).expect_err("beyond the limit");
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        let error = Arena::new(&device, "arena", 64, WEIGHTS).alloc(bytes).expect_err("beyond the limit");
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    }
}

#[test]
fn an_arena_aligns_its_slices_and_fills_its_blocks() {
    let device = noop();
    let mut arena = Arena::new(&device, "arena", 1000, WEIGHTS);
    let slices: Vec<_> = (0..5).map(|_| arena.alloc(5).expect("room")).collect();
    assert_eq!(arena.capacity(), 2048, "blocks are rounded up to 1024");
    assert!(slices.iter().all(|slice| slice.offset % 256 == 0 && slice.size == 8), "{slices:?}");
    assert!(slices[..4].iter().all(|slice| slice.buffer == slices[0].buffer), "four fit a block");
    assert_ne!(slices[4].buffer, slices[0].buffer, "the fifth takes the next");
    let large = arena.alloc(5000).expect("a buffer of its own");
    assert_eq!((large.offset, large.buffer.size()), (0, 5000), "as large as asked for");
    let small = arena.alloc(4).expect("room");
    assert_eq!(small.buffer, slices[4].buffer, "the gap before it is still used");
    assert_eq!(arena.blocks(), 3, "two blocks and the large buffer");
}

#[test]
fn a_reset_arena_hands_out_the_same_memory_again() {
    let device = noop();
    let mut arena = Arena::new(&device, "arena", 1024, WEIGHTS);
    let first = arena.alloc(1024).expect("room");
    arena.reset();
    assert_eq!(arena.used(), 0, "all is free");
    let second = arena.alloc(512).expect("room");
    assert_eq!((second.buffer, second.offset), (first.buffer, 0), "the same bytes");
    assert_eq!(arena.capacity(), 1024, "no new memory");
}

#[test]
fn an_upload_larger_than_its_window_arrives_whole() {
    let device = noop();
    // Three windows, and a last write that is no multiple of anything.
    let bytes: u64 = (150 << 20) + 7;
    let slice = block_on(device.buffer("weights", bytes)).expect("a buffer");
    let chunk: Vec<u8> = (0..=255).collect::<Vec<u8>>().repeat(40_000);
    let mut uploader = Uploader::new(&device);
    let mut offset = 0;
    while offset < bytes {
        let size = usize::try_from((bytes - offset).min(chunk.len() as u64)).expect("a chunk fits");
        block_on(uploader.write(&slice, offset, &chunk[..size])).expect("it fits");
        offset += size as u64;
    }
    block_on(uploader.flush()).expect("all arrives");
    assert_eq!(uploader.written(), bytes, "bytes are counted");
    let back = block_on(device.read(&slice)).expect("read-back");
    assert_eq!(back.len() as u64, bytes + 1, "whole words come back");
    let (written, filling) = back.split_at(back.len() - 1);
    assert_eq!(filling, [0], "zero fills the last word");
    // By whole chunks, because byte by byte takes seconds in a debug build.
    let wrong = written.chunks(chunk.len()).position(|part| part != &chunk[..part.len()]);
    assert_eq!(wrong, None, "the first chunk that differs");
    let error = block_on(uploader.write(&slice, bytes / 4 * 4, &[0; 12])).expect_err("beyond the slice");
    assert!(matches!(error, Error::Validation { .. }), "{error}");
}
