// A WebSocket server of Node's: sends back what it gets. At /close it closes with 4001; at /greet it speaks first.
const { WebSocketServer } = require('ws');

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(process.argv[2]),
  maxPayload: 0,
  perMessageDeflate: true,
  handleProtocols: () => 'chat',
});
server.on('connection', (socket, request) => {
  if (request.url === '/close') {
    socket.close(4001, 'so long');
    return;
  }
  if (request.url === '/greet') socket.send('welcome');
  socket.on('message', (message, isBinary) => socket.send(message, { binary: isBinary }));
  const pings = setInterval(() => socket.ping(), 200);
  socket.on('close', () => clearInterval(pings));
});
