//! The control: it breaks at one word, which is found soon where coverage guides the search, letter by letter,
//! and never by chance. `tests/fuzz` is red unless it is found.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let is = |at: usize, letter: u8| data.get(at) == Some(&letter);
    // Each letter is a branch of its own.
    if is(0, b'w') && is(1, b'A') && is(2, b't') && is(3, b'C') && is(4, b'h') && is(5, b'!') {
        panic!("the word was found");
    }
});
