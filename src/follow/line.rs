//! The words between whoever reads a file and whoever takes its lines: a line, the answer to it, and what a turn did.
//!
//! Plain data; nothing here reads.

/// Bytes of a line that are kept; the rest of a longer one is counted and left out. Sumo cuts field
/// extraction at the same length.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// One line of a followed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The line without its newline and without one carriage return before it.
    pub bytes: &'a [u8],
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in the file, with its line end. More than `bytes` holds where `cut` is set.
    pub length: u64,
    /// The line was longer than [`LINE_BYTES_MAX`]; `bytes` is its beginning.
    pub cut: bool,
    /// The file ended for good without a newline behind this line.
    pub partial: bool,
    /// [`Tracked::count`] has handed it out already, in this life or in one before.
    pub counted: bool,
}

impl<'a> Line<'a> {
    /// A line that is all there.
    pub(super) fn whole(bytes: &'a [u8], offset: u64, length: u64) -> Line<'a> {
        Line { bytes, offset, length, cut: false, partial: false, counted: false }
    }
}

/// What the taker of lines wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next line.
    Continue,
    /// No more now; the line just given counts as taken.
    Stop,
    /// No more now; the line just given was not taken and comes again.
    Refuse,
}

/// What one turn of reading did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Complete lines handed out.
    pub lines: u64,
    /// Bytes read, those of a line that has not ended yet included.
    pub bytes: u64,
    /// Whether more complete lines may be waiting.
    pub more: bool,
    /// The taker refused a line.
    pub refused: bool,
    /// The file was cut or rewritten: nothing was read, and it is no longer the file of this position.
    pub rewritten: bool,
    /// NUL bytes at the start of a line that were passed.
    pub nuls: u64,
    /// The file has lost its name and was read to its end; it can be let go.
    pub finished: bool,
    /// What has come into the file, which was empty, is compressed: no line of it will ever be read.
    pub compressed: bool,
}
