//! Components that are small to send and long to compile: what a compiler does for them grows with the square, or faster, of what
//! is written. Made byte by byte, since their text would be large.

/// How a component is meant to hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bomb {
    /// So many functions that do nothing.
    Functions(usize),
    /// So many functions with so many locals.
    Locals(usize, u32),
    /// So many loops one after the other, each of which hands so many values on.
    Loops(usize, usize),
    /// So many blocks one after the other that have a result.
    Results(usize),
    /// So many blocks, one within the other.
    Nested(usize),
    /// A jump with so many targets, to so many blocks.
    Jumps(usize, u32),
    /// So many branches, each of which changes one of so many locals.
    Branches(usize, u32),
    /// So many calls with so many parameters and results.
    Calls(usize, usize),
    /// So many divisions in a row.
    Line(usize),
    /// Components that have two instances each of the one before, so many times.
    Doubled(usize),
    /// So many bytes of data.
    Data(usize),
    /// So many entries of tables.
    Elements(usize),
}

impl Bomb {
    /// The component. It exports nothing: if it is compiled, that is what is said of it.
    pub fn component(self) -> Vec<u8> {
        let get = |local: u32| [&[0x20][..], &leb(local)].concat();
        let set = |local: u32| [&[0x21][..], &leb(local)].concat();
        match self {
            Self::Functions(n) => functions(&[ty(0, 0)], &vec![(0, body(0, &[])); n]),
            Self::Locals(n, locals) => functions(&[ty(0, 0)], &vec![(0, body(locals, &[])); n]),
            Self::Loops(n, values) => {
                let mut code = [0x41, 1].repeat(values);
                code.extend([0x03, 1, 0x0b].repeat(n));
                code.extend([0x1a].repeat(values));
                functions(&[ty(0, 0), ty(values, values)], &[(0, body(0, &code))])
            }
            Self::Results(n) => functions(
                &[ty(0, 0)],
                &[(0, body(0, &[0x02, 0x7f, 0x41, 1, 0x0b, 0x1a].repeat(n)))],
            ),
            Self::Nested(n) => {
                let code = [[0x02, 0x40].repeat(n), [0x0b].repeat(n)].concat();
                functions(&[ty(0, 0)], &[(0, body(0, &code))])
            }
            Self::Jumps(n, blocks) => {
                let mut code = [0x02, 0x40].repeat(blocks as usize);
                code.extend([0x41, 1, 0x0e]);
                code.extend(leb(u32::try_from(n).unwrap()));
                code.extend((0..n).flat_map(|n| leb(u32::try_from(n).unwrap() % blocks)));
                code.push(0);
                code.extend([0x0b].repeat(blocks as usize));
                functions(&[ty(0, 0)], &[(0, body(0, &code))])
            }
            Self::Branches(n, locals) => {
                let mut code = Vec::new();
                for n in 0..u32::try_from(n).unwrap() {
                    code.extend([0x20, 0, 0x04, 0x40]);
                    code.extend(get(n % locals));
                    code.extend([0x41, 1, 0x6a]);
                    code.extend(set((n * 7 + 1) % locals));
                    code.push(0x0b);
                }
                for local in 0..locals {
                    code.extend(get(local));
                    code.extend(set(0));
                }
                functions(&[ty(0, 0)], &[(0, body(locals, &code))])
            }
            Self::Calls(n, values) => {
                let types = [ty(0, 0), ty(0, values), ty(values, 0)];
                let give = body(0, &[0x41, 1].repeat(values));
                let calls = body(0, &[0x10, 1, 0x10, 2].repeat(n));
                functions(&types, &[(0, calls), (1, give), (2, body(0, &[]))])
            }
            Self::Line(n) => {
                let code = [0x20, 0, 0x20, 1, 0x6d, 0x20, 1, 0x20, 0, 0x6f, 0x6a, 0x21, 0].repeat(n);
                functions(&[ty(0, 0)], &[(0, body(2, &code))])
            }
            Self::Doubled(n) => {
                let mut text = String::from("(component (component $c0)");
                for n in 1..=n {
                    text += &format!(
                        "(component $c{n} (alias outer 1 $c{} (component $x))
                            (instance (instantiate $x)) (instance (instantiate $x)))",
                        n - 1
                    );
                }
                wat::parse_str(format!("{text} (instance (instantiate $c{n})))")).unwrap()
            }
            Self::Data(n) => {
                let segment = [&[1, 0, 0x41, 0, 0x0b][..], &leb(u32::try_from(n).unwrap()), &vec![7; n]].concat();
                let pages = leb(u32::try_from(n / 65_536 + 1).unwrap());
                module(&[section(5, &[&[1, 0][..], &pages].concat()), section(11, &segment)])
            }
            Self::Elements(n) => {
                let mut segment = [&[0, 0x41, 0, 0x0b][..], &leb(20_000)].concat();
                segment.resize(segment.len() + 20_000, 0);
                module(&[
                    section(1, &vector(&[ty(0, 0)])),
                    section(3, &[1, 0]),
                    section(4, &[&[1, 0x70, 0][..], &leb(20_000)].concat()),
                    section(9, &vector(&vec![segment; n / 20_000])),
                    section(10, &vector(&[body(0, &[])])),
                ])
            }
        }
    }
}

/// A component of one module with these types, and these functions: the type of each and its body.
fn functions(types: &[Vec<u8>], functions: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let (of, bodies): (Vec<_>, Vec<_>) = functions.iter().map(|(ty, body)| (leb(*ty), body.clone())).unzip();
    module(&[
        section(1, &vector(types)),
        section(3, &vector(&of)),
        section(10, &vector(&bodies)),
    ])
}

/// A component of one module with these sections.
fn module(sections: &[Vec<u8>]) -> Vec<u8> {
    let module = [b"\0asm\x01\0\0\0".to_vec(), sections.concat()].concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, &module)].concat()
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(u32::try_from(content.len()).unwrap()), content].concat()
}

fn vector(items: &[Vec<u8>]) -> Vec<u8> {
    [leb(u32::try_from(items.len()).unwrap()), items.concat()].concat()
}

/// The type of a function that takes and gives so many `i32`.
fn ty(params: usize, results: usize) -> Vec<u8> {
    let values = |n: usize| [leb(u32::try_from(n).unwrap()), vec![0x7f; n]].concat();
    [vec![0x60], values(params), values(results)].concat()
}

/// The body of a function with so many locals.
fn body(locals: u32, code: &[u8]) -> Vec<u8> {
    let declared = match locals {
        0 => vec![0],
        n => [&[1][..], &leb(n), &[0x7f]].concat(),
    };
    let inner = [&declared[..], code, &[0x0b]].concat();
    [leb(u32::try_from(inner.len()).unwrap()), inner].concat()
}

/// A number as WebAssembly writes it.
fn leb(mut n: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(n & 0x7f).unwrap();
        n >>= 7;
        if n == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}
