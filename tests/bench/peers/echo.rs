// Echo with Rust's standard library: a thread for each connection, one for the datagrams.
use std::io::{Read, Result, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;

fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 16384];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}

fn datagrams(socket: UdpSocket) {
    let mut buffer = vec![0; 65536];
    loop {
        if let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..n], from);
        }
    }
}

fn main() -> Result<()> {
    let at = format!("127.0.0.1:{}", std::env::args().nth(1).expect("a port"));
    let socket = UdpSocket::bind(&at)?;
    thread::spawn(move || datagrams(socket));
    for stream in TcpListener::bind(&at)?.incoming().flatten() {
        thread::spawn(move || serve(stream));
    }
    Ok(())
}
