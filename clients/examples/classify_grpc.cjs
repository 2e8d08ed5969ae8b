// classify.js
const { readFileSync } = require("node:fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

// Where the checkout's protocol/ is. Fields keep their names: top_k, not topK.
const definition = loader.loadSync(["convoy/v1/classifier.proto", "google/rpc/error_details.proto"], {
  includeDirs: [process.env.CONVOY_PROTOCOL ?? "protocol"], keepCase: true, enums: String, defaults: true,
});
const { ImageClassifier } = grpc.loadPackageDefinition(definition).convoy.v1;

// The messages of `type` among the details of an error.
function details(error, type) {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!bytes) return [];
  const { details: all } = definition["google.rpc.Status"].deserialize(bytes);
  return all.filter((any) => any.type_url.endsWith(`/${type}`))
    .map((any) => definition[type].deserialize(any.value));
}

const [server, model, path] = process.argv.slice(2);
const client = new ImageClassifier(server, grpc.credentials.createInsecure());
const request = { model, top_k: 3, image: { content: readFileSync(path) } };
const deadline = Date.now() + 10_000; // milliseconds
client.Classify(request, new grpc.Metadata(), { deadline }, (error, answer) => {
  if (error) {
    console.error(error.details, details(error, "google.rpc.ErrorInfo")[0]?.reason ?? "");
    process.exitCode = 1;
  } else {
    for (const { label, score } of answer.classes) console.log(label, score.toFixed(4));
  }
  client.close();
});
