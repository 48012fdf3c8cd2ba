import greet;

int main() { greet("modules"); }
