// Sends the example of every request that an AsyncAPI document has, and prints the answers: all that it knows of the
// worker is the document. Usage: node ask.mjs BROKER DOCUMENT
import fs from "node:fs";
import kafkajs from "kafkajs";

const [broker, path] = process.argv.slice(2);
const document = JSON.parse(fs.readFileSync(path, "utf8"));

const find = (reference) => reference.slice(2).split("/").reduce((part, name) => part[name], document);
const { Kafka, logLevel } = kafkajs;
const kafka = new Kafka({ clientId: "ask", brokers: [broker], logLevel: logLevel.ERROR });

const questions = Object.values(document.operations)
  .filter((operation) => operation.reply)
  .map((operation, number) => {
    const channel = find(operation.channel.$ref);
    const [message] = Object.values(channel.messages).map((each) => find(each.$ref));
    const results = find(operation.reply.channel.$ref).address;
    return { topic: channel.address, results, value: message.examples[0].payload, correlation: `question ${number}` };
  });
const waiting = new Map(questions.map((question) => [question.correlation, question]));

const consumer = kafka.consumer({ groupId: `ask-${process.pid}` });
await consumer.connect();
await consumer.subscribe({ topics: questions.map((question) => question.results), fromBeginning: true });
const answered = new Promise((resolve) => {
  consumer.run({
    eachMessage: async ({ topic, message }) => {
      const correlation = message.headers.kafka_correlationId.toString();
      const question = waiting.get(correlation);
      if (question === undefined || question.results !== topic || message.key.toString() !== correlation) return;
      waiting.delete(correlation);
      console.log(JSON.stringify({ topic: question.topic, answer: JSON.parse(message.value.toString()) }));
      if (waiting.size === 0) resolve();
    },
  });
});

const producer = kafka.producer();
await producer.connect();
for (const { topic, value, correlation } of questions) {
  const headers = { kafka_correlationId: correlation };
  await producer.send({ topic, messages: [{ key: correlation, value: JSON.stringify(value), headers }] });
}
await answered;
await Promise.all([producer.disconnect(), consumer.disconnect()]);
