"""The distillation loop of PyTorch's tutorial, unchanged: a DataLoader, and the teacher in every batch."""

import json

import numpy as np
import torch
import torch.nn as nn
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class TeacherNet(nn.Module):
    """The tutorial's DeepNN."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 128, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=2, stride=2),
            nn.Conv2d(64, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=2, stride=2),
        )
        self.classifier = nn.Sequential(nn.Linear(2048, 512), nn.ReLU(), nn.Dropout(0.1), nn.Linear(512, num_classes))

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class StudentNet(nn.Module):
    """The tutorial's LightNN."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=2, stride=2),
            nn.Conv2d(16, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=2, stride=2),
        )
        self.classifier = nn.Sequential(nn.Linear(1024, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, num_classes))

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class ImagesInMemory(Dataset):
    """Decoded images with a transform per image, like torchvision's CIFAR10."""

    def __init__(self, path, split, transform):
        with np.load(path) as file:
            self.images = file[f"{split}_images"].transpose(0, 2, 3, 1)
            self.labels = file[f"{split}_labels"]
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def loaders(path):
    """The tutorial's transforms and batch size."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.45,) * 3, (0.25,) * 3)])
    train = DataLoader(ImagesInMemory(path, "train", transform), batch_size=128, shuffle=True)
    val = DataLoader(ImagesInMemory(path, "val", transform), batch_size=128)
    return train, val


def accuracy(student, loader, device):
    """Accuracy on a whole split."""
    student.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in loader:
            correct += (student(images.to(device)).argmax(1) == labels.to(device)).sum().item()
    return correct / len(loader.dataset)


def distil(config, data, teacher_path, epochs):
    """Train one student; yield the validation accuracy after each epoch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train_loader, val_loader = loaders(data)
    teacher = TeacherNet().to(device)
    teacher.load_state_dict(torch.load(teacher_path, map_location=device, weights_only=True))
    teacher.eval()
    student = StudentNet().to(device)
    ce_loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(student.parameters(), lr=config["lr"])
    temperature, alpha = config["temperature"], config["alpha"]
    for _ in range(epochs):
        student.train()
        running_loss = 0.0
        for images, labels in train_loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            with torch.no_grad():
                teacher_logits = teacher(images)
            student_logits = student(images)
            soft_targets = nn.functional.softmax(teacher_logits / temperature, dim=-1)
            soft_prob = nn.functional.log_softmax(student_logits / temperature, dim=-1)
            soft_loss = (
                torch.sum(soft_targets * (soft_targets.log() - soft_prob)) / soft_prob.size()[0] * temperature**2
            )
            loss = (1 - alpha) * ce_loss(student_logits, labels) + alpha * soft_loss
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        yield accuracy(student, val_loader, device)


def read_configs(path):
    """Load the trials to run."""
    with open(path) as file:
        return json.load(file)
