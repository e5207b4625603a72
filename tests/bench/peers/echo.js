// Echo in Node.js.
const host = '127.0.0.1';
const port = Number(process.argv[2]);
const datagrams = require('dgram').createSocket('udp4');

datagrams.on('message', (data, from) => datagrams.send(data, from.port, from.address));
datagrams.bind(port, host);
require('net').createServer({ noDelay: true }, (connection) => {
  connection.on('error', () => {});
  connection.pipe(connection);
}).listen({ host, port, backlog: 4096 });
