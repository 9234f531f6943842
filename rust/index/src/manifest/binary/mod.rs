//! A copy of the tables of a JSON file in binary, beside it, which takes a fraction of the time
//! to read.
//!
//! The JSON file alone is the truth. The copy holds the length and the checksum of the text that
//! its tables are written as, and whoever reads the copy hashes that text as well, so every byte
//! of the JSON file is still checked. A copy that is missing, damaged, or of another text or
//! version is no error: the JSON is parsed instead.
//!
//! ```text
//! head      format, length and checksum of the JSON text, size of each part
//! rare      what is not in the columns, as JSON: header, packs, contents of several segments or
//!           with reasons, files with reasons
//! columns   of all contents: hash, place, sums
//!           of all files: length of the path, path, stamps, flags, hash or number of the content
//! checksum  BLAKE3 of everything before
//! ```
//!
//! Integers are little-endian. What is read is checked by the same rules as JSON, so a forged
//! copy can do no more than a forged JSON file.

mod head;
mod read;
mod write;
