//! Mutations of text that is made of lines, words, numbers and indentation.

/// What stands in files of ours and of others, and what breaks readers of them.
const WORDS: [&str; 64] = [
    "---\n",
    "...\n",
    "- ",
    ": ",
    "? ",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "!!int ",
    "!x ",
    "|\n",
    "|2-\n",
    ">+\n",
    "'",
    "\"",
    "[",
    "]",
    "{",
    "}",
    ",",
    "#",
    " # serin: test/web/app\n",
    ":tag",
    "%YAML 1.2\n",
    "\t",
    "\r\n",
    "\r",
    "\u{feff}",
    "\u{2028}",
    "\u{85}",
    "\0",
    "\u{1b}[31m",
    "null",
    "~",
    "true",
    "yes",
    "0x1F",
    "0o17",
    "1e999",
    ".nan",
    "-.inf",
    "99999999999999999999",
    "-1",
    "0.0000001",
    "\\u0000",
    "\\",
    "\u{1f600}",
    "e\u{301}",
    "<<<<<<< HEAD\n",
    "=======\n",
    "kind: Canary\n",
    "kind: Deployment\n",
    "images:\n",
    "canary: test/web\n",
    "approval: granted\n",
    "weight: 101\n",
    "refs/heads/main",
    "remote: ",
    "!\t",
    "[rejected] (fetch first)",
    "NaN",
    "+Inf",
    "\"values\":[[1,\"1\"]]",
];

/// A source of inputs: the same for the same seed and corpus.
pub(super) struct Mutator {
    state: u64,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    pub(super) fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        Self {
            state: seed ^ 0x9e37_79b9_7f4a_7c15,
            corpus,
        }
    }

    /// A number below `limit`, which is at least 1 (xorshift*).
    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        random as usize % limit.max(1)
    }

    pub(super) fn next(&mut self) -> Vec<u8> {
        let pick = self.below(self.corpus.len());
        let mut input = self.corpus[pick].clone();
        for _ in 0..=self.below(6) {
            self.mutate(&mut input);
        }
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        match self.below(12) {
            0 => self.flip(input),
            1 => {
                let (start, end) = self.range(input, 16);
                input.drain(start..end);
            }
            2 | 3 => {
                let (start, end) = self.range(input, 8);
                let word = WORDS[self.below(WORDS.len())];
                input.splice(start..end, word.bytes());
            }
            4 => {
                let at = self.below(input.len() + 1);
                let word = WORDS[self.below(WORDS.len())];
                input.splice(at..at, word.bytes());
            }
            5 => self.lines(input, |lines, from, to| {
                let copy = lines[from].clone();
                lines.insert(to, copy);
            }),
            6 => self.lines(input, |lines, from, to| lines.swap(from, to)),
            7 => self.lines(input, |lines, from, _| {
                lines.remove(from);
            }),
            8 => self.lines(input, |lines, from, to| {
                let deeper = " ".repeat(to % 5);
                lines[from].splice(0..0, deeper.bytes());
            }),
            9 => self.lines(input, |lines, from, _| {
                let shallower = lines[from]
                    .iter()
                    .take_while(|byte| **byte == b' ')
                    .count()
                    .min(2);
                lines[from].drain(..shallower);
            }),
            10 => {
                let pick = self.below(self.corpus.len());
                let other = self.corpus[pick].clone();
                let (from, to) = self.range(&other, 200);
                let at = self.below(input.len() + 1);
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => self.number(input),
        }
    }

    fn flip(&mut self, input: &mut [u8]) {
        let (at, bit) = (self.below(input.len()), self.below(8));
        if let Some(byte) = input.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    fn range(&mut self, input: &[u8], longest: usize) -> (usize, usize) {
        let start = self.below(input.len() + 1);
        let end = (start + self.below(longest)).min(input.len());
        (start, end)
    }

    fn lines(&mut self, input: &mut Vec<u8>, edit: impl FnOnce(&mut Vec<Vec<u8>>, usize, usize)) {
        let mut lines: Vec<Vec<u8>> = input
            .split_inclusive(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        if lines.is_empty() {
            return;
        }
        let (from, to) = (self.below(lines.len()), self.below(lines.len()));
        edit(&mut lines, from, to);
        *input = lines.concat();
    }

    /// Another number where one stands.
    fn number(&mut self, input: &mut Vec<u8>) {
        let digits: Vec<usize> = (0..input.len())
            .filter(|at| input[*at].is_ascii_digit())
            .collect();
        let Some(at) = digits.get(self.below(digits.len())).copied() else {
            return;
        };
        let numbers = [
            "0",
            "1",
            "100",
            "101",
            "-1",
            "1.5",
            "4294967296",
            "18446744073709551616",
            "1e309",
        ];
        let number = numbers[self.below(numbers.len())];
        input.splice(at..=at, number.bytes());
    }
}
